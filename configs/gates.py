"""Gates at equal share of steered tokens, for Qwen3-1.7B-Base on HEx-PHI.

    python -m configs.gates
    python -m configs.gates --prompts data/alpaca_eval.json --out out/paper/alpaca-eval/gates

The gates of entropy, of its ratio to the last one, of the first tokens and of a held budget, and the random
one, at each share, between the policy alone and dense steering: gates.png and gates.csv.
The gates of the paper that read attention are not here: no fused kernel keeps attention weights.
configs/README.md has the other models and prompts, and what must be brought.
"""

from configs._paper import evaluation
from decode.evaluate import Args, main
from sia_jax.runs.cli import read_options

ARGS = evaluation(
    methods=("base", "dense", "entropy", "random", "entropy-ratio", "position", "budget"),
    out="out/paper/hex-phi/gates",
)

if __name__ == "__main__":
    main(read_options(Args, default=ARGS, description=__doc__))
