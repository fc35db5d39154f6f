"""Hugging Face's `transformers serve` on the same weights: the baseline of a server.

Runs where torch is installed (`make bench-serve`); nothing here imports it.
"""

import json
import shutil
import sys
from pathlib import Path

_ENDLESS = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": 0}
"""Samples as the other side does, over all ids, and no id ends a reply."""

_CACHE = ("--cb-num-blocks", "128", "--cb-max-batch-tokens", "512")
"""Room for 128 replies of 256 tokens with their prompts; by itself it takes nine tenths of the memory."""


def save_endless(policy: Path, folder: Path) -> None:
    """Copy a policy, but that its replies go on to the last token that is asked for.

    `transformers serve` refuses `ignore_eos`; what ends a reply is read from the checkpoint.

    Args:
      policy: a folder of a checkpoint.
      folder: the copy, which is not there yet.
    """
    shutil.copytree(policy, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["eos_token_id"] = None
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(_ENDLESS), encoding="utf-8")


def serve_command(folder: Path, port: int, *, continuous: bool) -> list[str]:
    """The command that serves a policy in float32 on the CPU.

    Args:
      folder: of `save_endless`.
      port: of 127.0.0.1.
      continuous: whether requests are batched; else they are answered one after another.
    """
    batching = ["--continuous-batching", *_CACHE] if continuous else []
    words = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), *batching]
    return [*words, "--dtype", "float32", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]


def system_of(*, continuous: bool) -> str:
    """What it is called in tables."""
    return "transformers serve, continuous batching" if continuous else "transformers serve"
