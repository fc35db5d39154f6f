"""Training a value model with torch and PEFT, as the official recipe does, sequence by sequence.

Nothing of sia_jax is used here: what comes out is a second opinion on `sia_jax.training`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from tests.support import reference
from tests.support.recipe import RECIPE
from tests.support.reference import Arrays, Shape

STEPS, BATCH = 20, 16


def random_batches(shape: Shape, seed: int) -> Arrays:
    """STEPS batches of BATCH trajectories: ids [S, B, L], where the reply begins and ends, and rewards."""
    rng = np.random.default_rng([seed, 77])
    prompts, replies = rng.integers(1, 8, (STEPS, BATCH)), rng.integers(1, 14, (STEPS, BATCH))
    return {
        "train_tokens": rng.integers(4, shape.vocab, (STEPS, BATCH, 22)).astype(np.int32),
        "train_starts": prompts.astype(np.int32),
        "train_ends": (prompts + replies).astype(np.int32),
        "train_rewards": rng.normal(0, 2, (STEPS, BATCH)).astype(np.float32),
    }


def train(
    folder: Path, base_folder: Path, arrays: Mapping[str, np.ndarray], out: Path | None = None
) -> Arrays:
    """What a step of AdamW for each batch changes: w_end - w_begin of LoRA and head, by our names.

    The loss of a batch is the mean over trajectories of (mean_t V - R)^2; gradients are clipped by norm.
    Dropout is off.

    Args:
      folder: the value model to begin with.
      base_folder: its base.
      arrays: of `random_batches`.
      out: where to write the value model that comes out, in the official layout; None: nowhere.
    """
    base = reference._load_any(base_folder, torch.float32)
    model = PeftModel.from_pretrained(base, folder / "lora_weights", is_trainable=True).eval()
    head = reference.load_head(folder)
    named = {
        name.removeprefix("base_model.model.").removeprefix("model.").replace(".default", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    named = {f"lora.{name}": parameter for name, parameter in named.items()}
    named |= {f"value_head.{name}": parameter for name, parameter in head.named_parameters()}
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    optimizer = torch.optim.AdamW(
        named.values(), lr=RECIPE["learning_rate"], weight_decay=RECIPE["weight_decay"]
    )
    losses = []
    for step in range(len(arrays["train_tokens"])):
        optimizer.zero_grad()
        total = 0.0
        for row in range(BATCH):
            start, end = arrays["train_starts"][step, row], arrays["train_ends"][step, row]
            ids = torch.from_numpy(arrays["train_tokens"][step, row, :end]).long()[None]
            hidden = model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[-1]
            values = head(hidden.float())[0, start:, 0]
            loss = (values.mean() - float(arrays["train_rewards"][step, row])) ** 2 / BATCH
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(list(named.values()), RECIPE["clip_norm"])
        optimizer.step()
        losses.append(total)
    if out is not None:
        reference.write_value_model(out, model, head, str(base_folder))
    updates = {f"update.{name}": (p.detach() - before[name]).numpy() for name, p in named.items()}
    return updates | {"train_losses": np.array(losses, np.float32)}
