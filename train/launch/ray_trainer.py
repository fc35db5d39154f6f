r"""Train a value model on the TPU hosts or GPU nodes of a Ray cluster, by Ray Train's JaxTrainer.

    # A v6e slice of 4 x 4 chips, four hosts; RAY_ADDRESS names the cluster, else Ray looks for one here.
    WORKERS=4 TPU=TPU-V6E TOPOLOGY=4x4 .venv/bin/python train/launch/ray_trainer.py \
        --data /mnt/shared/ultrafeedback --base Qwen/Qwen3-1.7B-Base --out /mnt/shared/vm \
        --mesh 4 4 1 --rows 16

    # Two nodes of eight GPUs, a worker a node.
    WORKERS=2 GPUS=8 .venv/bin/python train/launch/ray_trainer.py ARGUMENTS

The arguments are those of `python -m train.value_model`; --data, --base and --out must lie where every host
sees them, and each host must have this environment at the same path. Ray starts a worker a host and joins
them by jax.distributed. Where one is lost it starts all again, FAILURES times (default 3), and the run goes
on from its last checkpoint. Every host needs `ray[train]`, 2.49.1 or later for TPUs, and for GPUs one whose
JaxTrainer takes use_gpu: the extra `ray` of sia_jax brings Ray Data alone. `make ray` runs it with Ray 2.60
and two workers on a CPU. DRY_RUN=1 prints the trainer's configuration instead of running it.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "train.value_model"


def configuration(environment: Mapping[str, str], arguments: Sequence[str]) -> dict[str, Any]:
    """What JaxTrainer is given: fields of its ScalingConfig and RunConfig, and the worker's argument; JSON.

    Args:
      environment: WORKERS, and TPU with TOPOLOGY or GPUS; FAILURES.
      arguments: of train.value_model.

    Raises:
      ValueError: what is missing, or no number.
    """
    if not arguments:
        raise ValueError(f"usage: WORKERS=N {sys.argv[0]} ARGUMENTS OF {PROGRAM}")
    workers = _count(environment, "WORKERS", "the hosts, each of which is one process")
    scaling: dict[str, Any] = {"num_workers": workers}
    if ("TPU" in environment) == ("GPUS" in environment):
        raise ValueError("set TPU=TPU-V6E and TOPOLOGY=4x4 for a slice, or GPUS to the GPUs of a node")
    if "TPU" in environment:
        if not environment.get("TOPOLOGY"):
            raise ValueError("set TOPOLOGY to the slice's, such as 4x4")
        scaling |= {
            "use_tpu": True,
            "accelerator_type": environment["TPU"],
            "topology": environment["TOPOLOGY"],
        }
    else:
        gpus = _count(environment, "GPUS", "the GPUs of a node")
        scaling |= {"use_gpu": True, "resources_per_worker": {"CPU": 1, "GPU": gpus}}
    failures = _count(environment, "FAILURES", "how often to start again", default="3", least=0)
    return {
        "scaling_config": scaling,
        "run_config": {"name": "sia-value-model", "failure_config": {"max_failures": failures}},
        "train_loop_config": {"folder": str(ROOT), "arguments": ["--distributed", *arguments]},
    }


def _count(
    environment: Mapping[str, str], name: str, what: str, default: str | None = None, least: int = 1
) -> int:
    text = environment.get(name) or default or ""
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ValueError(f"set {name} to {what}, {least} or more, got {text!r}")
    return int(text)


def work(config: dict[str, Any]) -> None:
    """A worker's run of the program, once Ray has joined the processes; a failure is one for Ray too.

    Raises:
      RuntimeError: the program has ended with an error, which Ray would take for an end.
    """
    sys.path.insert(0, config["folder"])
    # The driver imports neither: JAX there would hold the devices of its host.
    from sia_jax.runs.cli import read_options
    from train import value_model

    try:
        value_model.main(read_options(value_model.Args, config["arguments"], prog=f"python -m {PROGRAM}"))
    except SystemExit as end:
        if end.code not in (None, 0):
            raise RuntimeError(f"{PROGRAM} has failed: {end.code}") from end


def main() -> None:
    """Start the trainer, or with DRY_RUN print what it would be given."""
    try:
        found = configuration(os.environ, sys.argv[1:])
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    if os.environ.get("DRY_RUN"):
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxTrainer

    run = found["run_config"]
    trainer = JaxTrainer(
        work,
        train_loop_config=found["train_loop_config"],
        scaling_config=ScalingConfig(**found["scaling_config"]),
        run_config=RunConfig(name=run["name"], failure_config=FailureConfig(**run["failure_config"])),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
