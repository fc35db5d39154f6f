"""Thresholds of Qwen3-1.7B-Base for the paper's shares of steered tokens.

    python -m configs.thresholds
    python -m configs.thresholds --policy Qwen/Qwen3-4B-Base --out out/paper/thresholds-qwen3-4b.json

The prompts are those of WildGuardMix's test part, on which nothing is evaluated: data/wildguard_test.parquet.
Needs the weights of the policy alone. configs/README.md says which runs use them.
"""

from configs._paper import MAX_NEW_TOKENS, RATIOS
from decode.calibrate import Args, main
from sia_jax.runs.cli import read_options

ARGS = Args(
    policy="Qwen/Qwen3-1.7B-Base",
    prompts="data/wildguard_test.parquet",
    out="out/paper/thresholds-qwen3-1-7b.json",
    ratios=RATIOS,
    max_new_tokens=MAX_NEW_TOKENS,
)

if __name__ == "__main__":
    main(read_options(Args, default=ARGS, description=__doc__))
