#!/usr/bin/env bash
# Train a value model on every host of a TPU slice.
#
#   TPU_NAME=sia ZONE=us-east5-a train/launch/tpu_pod.sh \
#       --data /mnt/shared/ultrafeedback --base Qwen/Qwen3-1.7B-Base --out /mnt/shared/vm \
#           --mesh 4 4 1 --rows 16
#
# The arguments are those of `python -m train.value_model`; --data, --base and --out must lie where every host
# sees them. The commit that you stand on is copied to each host and its environment built there; then one
# process a host joins the others by jax.distributed, which finds them by the slice's own metadata. Started
# again, the run goes on from its last checkpoint. DRY_RUN=1 prints the commands instead of running them.
set -euo pipefail

: "${TPU_NAME:?set TPU_NAME to the name of the slice}"
: "${ZONE:?set ZONE to its zone}"
if (($# == 0)); then
  echo "usage: TPU_NAME=... ZONE=... $0 ARGUMENTS OF train.value_model" >&2
  exit 2
fi

run() {
  if [[ -n ${DRY_RUN:-} ]]; then
    printf '%q' "$1"
    printf ' %q' "${@:2}"
    printf '\n'
  else
    "$@"
  fi
}

on_every_host() {
  run gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all --command="$1"
}

printf -v arguments ' %q' "$@"
run git archive --format=tar.gz --output=sia_jax.tar.gz HEAD
run gcloud compute tpus tpu-vm scp sia_jax.tar.gz "$TPU_NAME:" --zone="$ZONE" --worker=all
on_every_host "mkdir -p sia_jax && tar -xzf sia_jax.tar.gz -C sia_jax"
on_every_host "cd sia_jax && make env && .venv/bin/python -m pip install -q 'jax[tpu]'"
on_every_host "cd sia_jax && exec .venv/bin/python -m train.value_model --distributed$arguments"
