"""A tiny training run in a process of its own, to be killed, or in one of several.

    python -m tests.support.tiny_training FOLDER --devices 8 --pause 0.1
    python -m tests.support.tiny_training FOLDER --die-after 11
    python -m tests.support.tiny_training FOLDER --devices 4 --processes 2 --process 0 --port 12345

It writes the final weights to FOLDER/final.npz, and a line to stdout at each step.
"""

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import make_mesh, shard_params
from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.config import OptimizerConfig, TrainConfig
from sia_jax.training.loop import LoopConfig, run
from sia_jax.training.step import init_state
from sia_jax.types import flatten_names
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.trajectories import random_trajectories

LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.1)
LOOP = LoopConfig(epochs=5, row_length=32, rows=8, evaluate_every=7, checkpoint_every=3)


def process_environment() -> dict[str, str]:
    """For such a process: nothing of the parent's devices, and one cache of compiled programs for all."""
    cache = Path(tempfile.gettempdir()) / f"sia_jax_tiny_training_{os.getuid()}_{jax.__version__}"
    return environment_with_cache(cache)


def environment_with_cache(folder: Path) -> dict[str, str]:
    """For processes that compile the same programs, one after the other."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def main(folder: Path, mesh_shape: tuple[int, int, int] | None, pause: float, die_after: int | None) -> None:
    """Train 20 steps, from where the folder stands."""
    policy = tiny_policy(num_layers=1)
    value = tiny_value_model(policy, lora=LORA)
    config = TrainConfig(value.config, optimizer=OptimizerConfig(learning_rate=1e-2), batch_size=8)
    trajectories = random_trajectories(40, policy.config.vocab_size)
    data, held_out = trajectories[:32], trajectories[32:]
    mesh = None if mesh_shape is None else make_mesh(*mesh_shape)
    frozen, trained = {"model": policy.params["model"]}, value.params
    if mesh is not None:
        frozen, trained = shard_params(frozen, mesh), shard_params(trained, mesh)
    key = jax.random.key(5, impl="threefry2x32")
    state = init_state(trained, key, config=config, mesh=mesh)

    def told(report) -> None:  # type: ignore[no-untyped-def]
        print(f"step {report.step} {report.loss:.9g}", flush=True)
        time.sleep(pause)
        if report.step == die_after:
            checkpoints.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    finished = run(
        frozen, state, data, held_out, config, LOOP, mesh=mesh, checkpoints=checkpoints, on_step=told
    )
    best = checkpoints.restore(finished.state, best=True)
    checkpoints.close()
    assert finished.complete
    if jax.process_count() == 1:
        assert best is not None
        assert best[1]["best_step"] == finished.progress.best_step
        trees = {"last": finished.state.trained, "best": best[0].trained}
        arrays = {name: np.asarray(leaf) for name, leaf in flatten_names(trees).items()}
        np.savez(folder / "final.npz", best=finished.progress.best_step, **arrays)
    print("finished", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--mesh", type=int, nargs=3)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument(
        "--die-after", type=int, help="step at which it kills itself, its checkpoints written"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    if options.processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{options.port}", options.processes, options.process)
    main(options.folder, options.mesh and tuple(options.mesh), options.pause, options.die_after)
