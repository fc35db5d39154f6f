r"""Train a value model on what it steers, in rounds: replies, rewards, training, validation; keep the best.

    # Three rounds of four replies a prompt, from the second on half of them steered:
    python -m train.iterate --policy Qwen/Qwen3-1.7B --reward Skywork/Skywork-Reward-V2-Qwen3-8B \
        --prompts train.jsonl --validation validation.jsonl --threshold 1.2 --out out/iterated

    # From a value model that is there, with a reward that is a program, on the newest replies alone:
    python -m train.iterate --policy Qwen/Qwen3-1.7B --value out/vm/best --rounds 2 --learn-from last \
        --reward-function sia_jax.rewards.sentiment:vader --prompts train.jsonl \
        --validation validation.jsonl --out out/iterated

    # Steer with the best:
    python -m decode.generate --policy Qwen/Qwen3-1.7B --value out/iterated/best --threshold 1.2 --prompt "Hi"

A value model that has seen replies of the policy alone does not know the prefixes that its own steering leads
to. So each round samples --replies to every training prompt, of which the value model so far steers the share
--steered (none before there is one), scores them, trains the value model further on them (--learn-from all:
beside those of all rounds before), and lets it steer replies to the validation prompts. The best is the one
with the largest mean reward there.

The rounds are runs of train.prepare, train.label and train.value_model, whose folders stand in OUT/round-N.
OUT holds iteration.md, a page with curves.png and curves.csv, results.json, and best/, a value model with a
model card that the Hub takes. Stop it at any moment and start the same command again: it goes on, within a
stage too, and ends in the same value models. --rounds may be raised later; other options may not change, but
for those that change no result: --mesh, --batch, --batch-tokens, --rows, --remat, and what the card says.
"""

from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.rewards import reward_inputs
from train.iterate_options import Args, check_options
from train.iteration import Iteration


def main(args: Args) -> None:
    """Iterate; exits with 1 if something is wrong with options or files, with 130 or 143 if interrupted."""
    kept = "interrupted; the same command goes on"
    with program("train.iterate", FloatingPointError, interrupted=lambda: kept) as console:
        check_options(args)
        check_outputs(
            inputs={
                **{"--policy": args.policy, "--value": args.value},
                **{"--prompts": args.prompts, "--validation": args.validation},
                **reward_inputs(args.reward_model),
            },
            folders={"--out": args.out},
        )
        with locked(folders=(args.out,)):
            Iteration(args, console).run()


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
