"""Sparse and dense steering of Qwen3-1.7B-Base beside the baselines of the paper, on HEx-PHI.

    python -m configs.baselines
    python -m configs.baselines --prompts data/alpaca_eval.json --out out/paper/alpaca-eval/baselines

The methods: the policy alone, best of 4 and 8, ARGS, Transfer Q*, chunk-level beam search, dense steering,
and the entropy gate at each share. Which weights of ARGS and Transfer Q*, and which chunks, the paper uses is
not known here: these are 1, 1, and 4 drafts of 2 continuations by 30 tokens, eight of which are drawn at a
time as for best of 8. configs/README.md has the other models and prompts, and what must be brought.
"""

from configs._paper import evaluation
from decode.evaluate import Args, main
from sia_jax.runs.cli import read_options

ARGS = evaluation(
    methods=("base", "best-of", "search", "dense", "entropy"),
    best_of=(4, 8),
    search=("args(1.0)", "transfer_q(1.0)", "cbs(4, 2, 30)"),
    out="out/paper/hex-phi/baselines",
)

if __name__ == "__main__":
    main(read_options(Args, default=ARGS, description=__doc__))
