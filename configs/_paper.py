"""What the evaluations of the paper have in common; each names its own methods, models and prompts.

Settings are those of the official code's README and of the paper's abstract and appendix as others quote them
(https://github.com/hurunyi/SIA, https://arxiv.org/abs/2602.21215): beta 1, ten candidates, temperature 1.
"""

from typing import Any

from decode.evaluate import Args

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Shares of steered tokens that the official code sweeps, but for 1, which is dense steering."""

TEACHER = "Skywork/Skywork-Reward-V2-Qwen3-8B"
"""What the value models have learned from, and what best-of-N and searches choose by."""

JUDGE = "Skywork/Skywork-Reward-V2-Llama-3.1-8B"
"""What the paper's rewards are measured with."""

MAX_NEW_TOKENS = 256


def evaluation(**changes: Any) -> Args:
    """A run of `decode.evaluate` on HEx-PHI with Qwen3-1.7B-Base and its published value model.

    Args:
      **changes: options that are others.
    """
    options: dict[str, Any] = {
        "policy": "Qwen/Qwen3-1.7B-Base",
        "value": "Runyi-Hu/SIA/VM-Qwen3-1.7B-Base",
        "reward": (TEACHER,),
        "gold_reward": JUDGE,
        "prompts": "data/hex-phi.csv",
        "thresholds": "out/paper/thresholds-qwen3-1-7b.json",
        "seeds": 1,
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    return Args(**options | changes)
