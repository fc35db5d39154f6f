"""What a chat template leaves out of a conversation, which it renders without an error all the same.

A page that a server sent in place of a template, a template of other variables, one that knows no system
messages: what was said is gone. Templates may change contents (they trim them, or take thoughts out), so the
words of a probe are looked for: a conversation of the same turns, with a plain word of its own in each.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from string import ascii_lowercase
from typing import Any, NamedTuple, cast

from sia_jax.text.templates import TemplateRefusal, render, template_of
from sia_jax.text.tokenizer import Tokenizer


def check_words(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = False,
    chat_template: str | None = None,
    **variables: Any,
) -> None:
    """Check that the template writes what each of these messages says.

    A probe is rendered once for a template and an order of roles, and its outcome remembered.

    Args:
      tokenizer: a checkpoint's, with a chat template.
      messages: a conversation that ends with the user or the assistant.
      add_generation_prompt: as of `sia_jax.text.templates.render`, like the rest.
      chat_template: as of `render`.
      **variables: of the template; JSON.

    Raises:
      TemplateRefusal: it leaves out one of these messages; others it writes.
      ValueError: it leaves out even a single question, or the reply to one.
    """
    checkpoint = _Checkpoint(
        str(tokenizer.name_or_path) or "the checkpoint",
        template_of(tokenizer, chat_template),
        json.dumps(dict(tokenizer.special_tokens_map)),
    )
    options = (add_generation_prompt, json.dumps(variables))
    roles = tuple(message["role"] for message in messages)
    least = ("user",) if roles[-1] == "user" else ("user", "assistant")
    lost = _left_out(checkpoint, least, *options)
    if lost:
        raw = ", or prompt the policy without one (form='raw', --prompt-form raw)"
        raise ValueError(
            f"{checkpoint.name_or_path}: the chat template leaves out what the {least[lost[0]]} says; take "
            f"that of the original checkpoint{raw if roles[-1] == 'user' else ''}"
        )
    left_out = _left_out(checkpoint, roles, *options)
    said = [index for index in left_out if messages[index]["content"].strip()]
    if said:
        what = "the system message" if roles[said[0]] == "system" else f"messages[{said[0]}]"
        why = f"it leaves {what} out; do without, or take a template that writes it"
        raise TemplateRefusal(checkpoint.name_or_path, why)


class _Checkpoint(NamedTuple):
    """What `render` looks at in a tokenizer, as a key."""

    name_or_path: str
    chat_template: str
    special_tokens: str

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.special_tokens)
        return found


@lru_cache(maxsize=1024)
def _left_out(
    checkpoint: _Checkpoint, roles: tuple[str, ...], opened: bool, variables: str
) -> tuple[int, ...]:
    """Places of the messages whose words are not in the text; none where the probe itself is refused."""
    words = [_word(index) for index in range(len(roles))]
    messages = [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]
    options = {"add_generation_prompt": opened, **json.loads(variables)}
    try:
        text = render(cast(Any, checkpoint), messages, **options).casefold()
    except TemplateRefusal:
        return ()
    return tuple(index for index, word in enumerate(words) if word not in text)


def _word(index: int) -> str:
    """Letters alone, and no word within another: "probeaaab"."""
    letters = ""
    for _ in range(4):
        index, letter = divmod(index, len(ascii_lowercase))
        letters = ascii_lowercase[letter] + letters
    return f"probe{letters}"
