#!/usr/bin/env bash
#SBATCH --job-name=sia-value-model
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#
# Train a value model on the GPUs of a Slurm allocation, one process a node.
#
#   sbatch --nodes=2 train/launch/slurm.sh \
#       --data data/ultrafeedback --base Qwen/Qwen3-4B-Base --out out/vm-4b --mesh 2 8 1 --rows 16
#
# The arguments are those of `python -m train.value_model`; --data, --base and --out must lie where every node
# sees them, and jax.distributed reads Slurm's environment by itself. A job that is requeued, or submitted
# again, goes on from its last checkpoint. DRY_RUN=1 prints the command instead of running it.
set -euo pipefail

if (($# == 0)); then
  echo "usage: sbatch $0 ARGUMENTS OF train.value_model" >&2
  exit 2
fi

command=(srun --kill-on-bad-exit=1 .venv/bin/python -m train.value_model --distributed "$@")
if [[ -n ${DRY_RUN:-} ]]; then
  printf '%q' "${command[0]}"
  printf ' %q' "${command[@]:1}"
  printf '\n'
else
  exec "${command[@]}"
fi
