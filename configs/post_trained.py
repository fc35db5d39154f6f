"""Qwen3-1.7B, which is post-trained, alone and steered, on HEx-PHI.

    python -m configs.post_trained
    python -m configs.post_trained --prompts data/alpaca_eval.json --out out/paper/alpaca-eval/post-trained

What the paper holds sparse steering of the base model against: "base" here is the post-trained policy alone,
by its chat template, without thinking. `sia compare` puts this run beside that of configs/baselines.py,
prompt by prompt. configs/README.md has the other models and prompts, and what must be brought.
"""

from configs._paper import evaluation
from decode.evaluate import Args, main
from sia_jax.runs.cli import read_options

ARGS = evaluation(
    policy="Qwen/Qwen3-1.7B",
    value_backbone="Qwen/Qwen3-1.7B-Base",
    thresholds="out/paper/thresholds-qwen3-1-7b-post-trained.json",
    methods=("base", "dense", "entropy"),
    out="out/paper/hex-phi/post-trained",
)

if __name__ == "__main__":
    main(read_options(Args, default=ARGS, description=__doc__))
