"""Hugging Face generation on the same weights, in the same run: the baseline of the benchmarks.

Runs where torch is installed (`make bench`); nothing else in the project imports torch.
"""

import time
from pathlib import Path
from typing import Any


def is_available() -> bool:
    """Whether torch can be imported."""
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def versions() -> dict[str, str]:
    """Versions of what runs the baseline."""
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__}


class HuggingFaceBaseline:
    """A ForCausalLM checkpoint in float32 with sdpa attention on all cores."""

    def __init__(self, folder: Path, threads: int):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._torch = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()

    def greedy(self, prompts: list[list[int]], new_tokens: int, cache: str) -> tuple[list[list[int]], float]:
        """Greedy replies of exactly `new_tokens` ids, and the seconds they took.

        Args:
          prompts: prompts of one length.
          new_tokens: ids a reply.
          cache: "dynamic" or "static".
        """
        ids = self._torch.tensor(prompts)
        start = time.perf_counter()
        with self._torch.no_grad():
            out = self._model.generate(
                ids,
                attention_mask=self._torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
                cache_implementation=None if cache == "dynamic" else cache,
                pad_token_id=0,
                eos_token_id=None,
            )
        seconds = time.perf_counter() - start
        return out[:, ids.shape[1] :].tolist(), seconds
