"""Hugging Face generation on the same weights, in the same run: the baseline of the benchmarks.

Runs where torch is installed (`make bench`); nothing else in the project imports torch.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.benchmarks.systems import System, Timing


def is_available(device: str = "cpu") -> bool:
    """Whether torch can be imported, and sees the device: "cpu" or "cuda"."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return device == "cpu" or torch.cuda.is_available()


def versions() -> dict[str, str]:
    """Versions of what runs the baseline."""
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__}


class HuggingFaceBaseline:
    """A ForCausalLM checkpoint with sdpa attention on all cores, or on a GPU.

    Args:
      folder: of the checkpoint.
      threads: of the CPU.
      device: "cpu" or "cuda".
      dtype: "float32" or "bfloat16".
    """

    def __init__(self, folder: Path, threads: int, device: str = "cpu", dtype: str = "float32"):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._torch = torch
        self._device = device
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
        self._model = model.to(device).eval()

    def sample(self, prompts: list[list[int]], new_tokens: int, cache: str) -> float:
        """Seconds for sampled replies of exactly `new_tokens` ids, at temperature 1 over all ids.

        Args:
          prompts: prompts of one length.
          new_tokens: ids a reply.
          cache: "dynamic" or "static".
        """
        ids = self._torch.tensor(prompts, device=self._device)
        self._torch.manual_seed(0)
        start = time.perf_counter()
        with self._torch.no_grad():
            self._model.generate(
                ids,
                attention_mask=self._torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
                cache_implementation=None if cache == "dynamic" else cache,
                pad_token_id=0,
                eos_token_id=None,
            )
        if self._device == "cuda":
            self._torch.cuda.synchronize()
        return time.perf_counter() - start

    def system(self, cache: str) -> System:
        """`sample` as one of the systems that are timed."""

        def call(prompts: list[list[int]], new_tokens: int) -> Timing:
            return Timing(self.sample(prompts, new_tokens, cache), len(prompts) * new_tokens)

        return call

    def official_pattern(
        self, prompt: list[int], new_tokens: int, ratio: float, num_candidates: int = 10
    ) -> float:
        """Seconds for one reply the way the official decoder makes it: no caches, one prompt at a time.

        Every token, the policy reads the whole sequence again; at a junction the value model reads it once
        for each candidate, in one batch. The same backbone stands in for the value model's.

        Args:
          prompt: ids.
          new_tokens: ids of the reply.
          ratio: share of junctions, spread at random.
          num_candidates: C.
        """
        torch = self._torch
        ids = torch.tensor([prompt])
        junctions = np.random.default_rng(0).random(new_tokens) < ratio
        head = torch.nn.Linear(self._model.config.hidden_size, 1)
        start = time.perf_counter()
        with torch.no_grad():
            for is_junction in junctions:
                logits = self._model(ids, use_cache=False, logits_to_keep=1).logits[0, -1]
                top = torch.topk(logits, num_candidates)
                scores = top.values
                if is_junction:
                    tries = torch.cat([ids.expand(num_candidates, -1), top.indices[:, None]], dim=1)
                    hidden = self._model.model(tries, use_cache=False).last_hidden_state[:, -1]
                    scores = scores + head(hidden)[:, 0]
                chosen = top.indices[torch.multinomial(torch.softmax(scores, dim=-1), 1)]
                ids = torch.cat([ids, chosen[None]], dim=1)
        return time.perf_counter() - start
