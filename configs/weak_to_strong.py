r"""The value model of Qwen3-4B-Base steers Qwen3-8B-Base, on HEx-PHI.

    python -m configs.weak_to_strong
    python -m configs.weak_to_strong --policy Qwen/Qwen3-14B-Base \
        --thresholds out/paper/thresholds-qwen3-14b.json --out out/paper/hex-phi/weak-to-strong-14b

The policy alone, dense steering, and the entropy gate at each share. configs/README.md has the other models
and prompts, and what must be brought.
"""

from configs._paper import evaluation
from decode.evaluate import Args, main
from sia_jax.runs.cli import read_options

ARGS = evaluation(
    policy="Qwen/Qwen3-8B-Base",
    value="Runyi-Hu/SIA/VM-Qwen3-4B-Base",
    value_backbone="Qwen/Qwen3-4B-Base",
    thresholds="out/paper/thresholds-qwen3-8b.json",
    methods=("base", "dense", "entropy"),
    out="out/paper/hex-phi/weak-to-strong-8b",
)

if __name__ == "__main__":
    main(read_options(Args, default=ARGS, description=__doc__))
