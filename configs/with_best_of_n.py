"""Sparse steering with best-of-N, for Qwen3-1.7B-Base on HEx-PHI.

    python -m configs.with_best_of_n
    python -m configs.with_best_of_n --combined 4 --out out/paper/hex-phi/with-best-of-n-4

The policy alone and its best of 4 and 8, the entropy gate at 20%, and the best of 8 replies that it steers,
chosen by the reward model and by the last value. configs/README.md has the other models and prompts, and what
must be brought.
"""

from configs._paper import evaluation
from decode.evaluate import Args, main
from sia_jax.runs.cli import read_options

ARGS = evaluation(
    methods=("base", "best-of", "dense", "entropy", "combined"),
    ratios=(0.2,),
    best_of=(4, 8),
    combined=8,
    out="out/paper/hex-phi/with-best-of-n",
)

if __name__ == "__main__":
    main(read_options(Args, default=ARGS, description=__doc__))
