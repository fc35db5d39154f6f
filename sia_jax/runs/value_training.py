"""The beginning and the end of the training of a value model: what it starts from, and what is kept of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import sia_jax
from sia_jax.checkpoints.fingerprint import fingerprint_of_folder
from sia_jax.checkpoints.hub import resolve_checkpoint
from sia_jax.checkpoints.huggingface import save_backbone
from sia_jax.checkpoints.value_model import OWN_BACKBONE
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.models.value_model import init_value_head
from sia_jax.parallel.mesh import shard_params
from sia_jax.pretrained import ValueModel
from sia_jax.text.markup import Markup
from sia_jax.training.config import TrainConfig
from sia_jax.training.loop import Progress
from sia_jax.training.step import TrainState, init_state
from sia_jax.types import Params, flatten_names


def begin(
    config: TrainConfig,
    model: Params,
    seed: int,
    *,
    start: ValueModel | None = None,
    teacher: ValueModel | None = None,
    mesh: Mesh | None = None,
) -> tuple[Params, TrainState]:
    """(frozen, the state before the first step), on their devices.

    Args:
      config: what is trained.
      model: the backbone.
      seed: of the weights that are new, and of what steps drop.
      start: whose weights are trained further, in place of new ones; see `check_start`.
      teacher: to distil from.
      mesh: that `model` lies on.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    lora_key, head_key = jax.random.split(key)
    frozen: Params = {}
    trained: Params = {"value_head": init_value_head(config.value, head_key)}
    if config.value.lora is not None:
        trained["lora"] = init_lora(model, config.value.lora, lora_key)
    if start is not None:
        trained["value_head"] = start.params["value_head"]
        if "lora" in trained and _adapter(start) is not None:
            trained["lora"] = start.params["lora"]
    if config.trained == "full":
        trained["model"] = model if start is None else start.params["model"]
    else:
        frozen["model"] = model
    if mesh is not None:
        trained = shard_params(trained, mesh)
    if teacher is not None:
        frozen["teacher"] = teacher.params
        if teacher.base is not None:  # which the teacher needs as it was, whatever becomes of it here
            frozen["model"] = teacher.base
    return frozen, init_state(trained, key, config=config, mesh=mesh)


def check_start(config: TrainConfig, start: ValueModel) -> None:
    """Whether a run can begin with the weights of a value model.

    Args:
      config: what is trained.
      start: over the backbone that the run freezes; merged where all of it is trained.

    Raises:
      ValueError: its head, its adapter or where it reads its hidden states are not those of the run.
    """
    ours, theirs = config.value, start.config
    told: dict[str, tuple[Any, Any]] = {
        "--head": (theirs.head, ours.head),
        "--head-rank": (theirs.head_rank, ours.head_rank),
        "--states": (theirs.states, ours.states),
    }
    adapter = None if start.base is None else _adapter(start)
    if ours.lora is not None and adapter is not None:
        told |= {
            "--rank": (adapter.rank, ours.lora.rank),
            "--alpha": (adapter.alpha, ours.lora.alpha),
            "--targets": (sorted(adapter.target_modules), sorted(ours.lora.target_modules)),
        }
    differing = [f"{name} {was!r} (now {now!r})" for name, (was, now) in told.items() if was != now]
    if differing:
        raise ValueError(f"--init {start.name} was made with {', '.join(differing)}; pass the same here")
    if config.trained == "full":
        return
    if start.base is None:
        raise ValueError(
            f"--init {start.name} has a backbone of its own, and --trained {config.trained} keeps that of "
            "--base; pass --trained full, or that backbone as --base"
        )
    if adapter is None:
        return
    if ours.lora is None:
        raise ValueError(
            f"--init {start.name} has an adapter, which --trained {config.trained} would drop; pass "
            f"--trained lora --rank {adapter.rank}"
        )
    if adapter.use_rslora or adapter.rank_pattern or adapter.alpha_pattern:
        raise ValueError(f"--init {start.name} has an adapter of a kind that is not trained here: {adapter}")


def _adapter(value: ValueModel) -> LoraConfig | None:
    """That of a value model; None: it has none, or one that changes nothing, for all of its B are zero."""
    leaves = flatten_names(value.params.get("lora", {}))
    zero = not any(np.any(leaf) for name, leaf in leaves.items() if ".lora_B." in name)
    return None if zero else value.config.lora


def export(
    folder: Path,
    config: TrainConfig,
    frozen: Params,
    state: TrainState,
    progress: Progress,
    *,
    base: str,
    markup: Markup | None,
    layout: Literal["sia_jax", "official"],
) -> None:
    """Write a value model, and its backbone if that was trained.

    Where no adapter was, it gets one that changes nothing, which both layouts need; not so a head on the
    policy's hidden states. Every process must call, for each holds a part of what is trained; the first one
    writes.

    Args:
      folder: where to.
      config: what was trained.
      frozen: as from `begin`.
      state: with what was trained.
      progress: of the run.
      base: the backbone's folder or Hub id.
      markup: of the prompts that it was trained on.
      layout: of the files.
    """
    trained = jax.tree.map(_whole, state.trained)
    if jax.process_index() != 0:
        return
    model = (frozen | trained)["model"]
    value_config, params = config.value, {"value_head": trained["value_head"]}
    if value_config.runs_passes:
        lora = value_config.lora or LoraConfig(1, 1.0, dropout=0.0)
        value_config = replace(value_config, lora=lora)
        params["lora"] = trained.get("lora") or init_lora(model, lora, jax.random.key(0))
    value = ValueModel(
        value_config,
        params,
        model,
        None,
        folder.name,
        markup,
    )
    extra = {
        "step": int(state.step),
        "best_step": progress.best_step,
        "held_out_loss": progress.best_loss,
    }
    named, base_folder = base, resolve_checkpoint(base)
    if config.trained == "full":
        base_folder = (folder / OWN_BACKBONE).absolute()
        named = str(base_folder)
        save_backbone(model, base_folder, base=base)
    sia_jax.save_value_model(
        value,
        folder,
        base_model=named,
        layout=layout,
        base_fingerprint=fingerprint_of_folder(base_folder),
        extra=extra,
    )


def _whole(array: jax.Array) -> Any:
    """An array in this process's memory; of several processes each must call."""
    if array.is_fully_addressable:
        return array
    return multihost_utils.process_allgather(array, tiled=True)
