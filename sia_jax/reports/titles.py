"""What rewards are called in tables and pictures."""

from collections.abc import Mapping
from typing import Any


def reward_title(results: Mapping[str, Any], measure: str) -> str:
    """'gold reward (a program that reads the text)': whose reward a measure is.

    Args:
      results: of a comparison, with its settings if there are any.
      measure: "gold" or "proxy".
    """
    settings = results.get("settings", {})
    if measure == "gold":
        is_model = str(settings.get("gold")).startswith("reward model ")
        whose = "another reward model's" if is_model else "a program that reads the text"
    elif "reward_functions" not in settings:
        whose = "a sum of reward models'" if "further_reward_models" in settings else "the reward model's"
    elif settings["reward"] is None:
        whose = "a program that reads the text"
    else:
        models = "reward models'" if "further_reward_models" in settings else "a reward model's"
        whose = f"{models} and a program's"
    return f"{measure} reward ({whose})"
