"""Lines of a file of prompts that are the world's own, whose gold reward is known."""

from collections.abc import Sequence

from sia_jax.data.prompts import PromptLine
from sia_jax.files.shown import shown_value
from sia_jax.world.prompts import Prompt, find_prompt


def world_prompts(prompts: Sequence[PromptLine], option: str, remedy: str) -> list[Prompt]:
    """The embedded world's prompts that the lines are, by id and text: those whose gold reward is known.

    Args:
      prompts: all of them.
      option: what asks for gold rewards: "--gold".
      remedy: what goes without them.

    Raises:
      ValueError: lines with other ids, or other texts.
    """
    found, wrong = [], []
    for line in prompts:
        try:
            known = find_prompt(str(line.id))
        except KeyError:
            wrong.append(f"no prompt has the id {shown_value(line.id, 60)}")
            continue
        if line.messages != known.messages:
            wrong.append(f"prompt {known.id!r} has another text than the world's: {known.text!r}")
        found.append(known)
    if wrong:
        raise ValueError(
            f"{option} is for prompts of the embedded world, and {len(wrong)} of {len(prompts)} are none of "
            f"them: {wrong[0]}; {remedy}"
        )
    return found
