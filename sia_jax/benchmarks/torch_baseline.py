"""Training with torch and PEFT on the same weights, in the same run: the baseline of the benchmark.

Runs where torch and peft are installed (`make bench-training`); nothing else in the project imports them.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.data.trajectories import Trajectory
from sia_jax.models.lora import LoraConfig


def is_available() -> bool:
    """Whether torch and peft can be imported."""
    import importlib.util

    return all(importlib.util.find_spec(name) is not None for name in ("torch", "peft"))


def versions() -> dict[str, str]:
    """Versions of what runs the baseline."""
    import peft
    import torch
    import transformers

    return {"torch": torch.__version__, "peft": peft.__version__, "transformers": transformers.__version__}


class TorchTrainer:
    """The official recipe: a PEFT adapter and a linear head on a frozen ForCausalLM, float32, all cores.

    The backbone is called without its lm_head, which the objective does not need; attention is sdpa.
    """

    def __init__(self, folder: Path, lora: LoraConfig, threads: int):
        import peft
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self._torch = torch
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        settings = peft.LoraConfig(
            r=lora.rank,
            lora_alpha=round(lora.alpha),
            lora_dropout=lora.dropout,
            target_modules=list(lora.target_modules),
            task_type="FEATURE_EXTRACTION",
        )
        model: Any = peft.get_peft_model(base, settings).train()
        self._backbone: Any = model.base_model.model.model
        self._head: Any = torch.nn.Linear(base.config.hidden_size, 1)
        adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._parameters = [*adapter, *self._head.parameters()]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-4, weight_decay=1e-4)

    def step(self, batch: Sequence[Trajectory], rows: int, width: int | None = None) -> float:
        """Seconds for one update from a batch.

        Args:
          batch: in the order in which they are put together.
          rows: trajectories that run at a time; gradients add up over the batch.
          width: tokens that every row is padded to; None: the longest that runs with it.
        """
        torch = self._torch
        start = time.perf_counter()
        self._optimizer.zero_grad()
        for begin in range(0, len(batch), rows):
            some = batch[begin : begin + rows]
            longest = width or max(t.length for t in some)
            ids, mask = np.zeros((len(some), longest), np.int64), np.zeros((len(some), longest), np.float32)
            for row, t in enumerate(some):
                ids[row, : t.length] = np.concatenate([t.prompt_ids, t.reply_ids])
                mask[row, len(t.prompt_ids) : t.length] = 1
            replies = torch.from_numpy(mask)
            rewards = torch.tensor([t.reward for t in some])
            # No attention mask: padding stands on the right, where causal attention does not look.
            hidden = self._backbone(input_ids=torch.from_numpy(ids), use_cache=False).last_hidden_state
            values = self._head(hidden)[..., 0]
            means = (values * replies).sum(-1) / replies.sum(-1)
            (torch.square(means - rewards).sum() / len(batch)).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        return time.perf_counter() - start
