r"""How a value model's prompt marks its turns: ChatML or Llama 3's way, as the tokenizer has it.

A value model reads its own form of a prompt. Which one follows the tokenizer, not the network: a
LlamaForCausalLM may have ChatML's tokens (SmolLM2), and a tokenizer may have both kinds (Hermes 3). The
checkpoint's chat template says which one it was trained with; without a template, the special tokens do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sia_jax.files.shown import shown_value
from sia_jax.text.templates import render
from sia_jax.text.tokenizer import Tokenizer, exact_ids, opening_ids

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Markup:
    """How turns are marked."""

    start: str
    """Opens the text: a BOS, or nothing."""
    header: str
    """Opens a turn, with {role} for whose it is."""
    end: str
    """Closes a turn."""

    def open(self, role: str) -> str:
        """What opens a turn of this role."""
        return self.header.replace("{role}", role)

    @property
    def turn_end(self) -> str:
        """The special token that closes a turn, and with it a complete reply."""
        return self.end.strip()

    @property
    def special_tokens(self) -> list[str]:
        """Those that it consists of."""
        return list(dict.fromkeys(re.findall(r"<\|\w+\|>", self.header + self.end)))

    def to_json(self) -> dict[str, str]:
        """As a value model records it; `read_markup` reads it back."""
        return {"start": self.start, "header": self.header, "end": self.end}


CHATML = Markup("", "<|im_start|>{role}\n", "<|im_end|>\n")
LLAMA3 = Markup("<|begin_of_text|>", "<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>")
MARKUPS = {"ChatML": CHATML, "Llama 3": LLAMA3}
"""Those that value models are prompted with; ChatML after a BOS too, where the tokenizer has one."""


def markup_of(tokenizer: Tokenizer) -> Markup:
    """The markup that a tokenizer's chat template writes, or else the one whose special tokens it has.

    Raises:
      ValueError: it has those of neither, or of both and no template that tells.
    """
    having = {name: m for name, m in MARKUPS.items() if not _missing(tokenizer, m)}
    written = {name: m for name, m in having.items() if _is_written(tokenizer, m)}
    found = written or having
    if len(found) != 1:
        tokens = ", ".join(f"{name}: {' '.join(m.special_tokens)}" for name, m in MARKUPS.items())
        got = "of both, and no chat template that uses either" if found else "of neither"
        raise ValueError(
            f"{tokenizer.name_or_path}: a value model's prompt is marked by special tokens ({tokens}), and "
            f"the tokenizer has those {got}; use a tokenizer that has them, such as the value model's own"
        )
    (markup,) = found.values()
    # Llama 3's opening belongs to it; with ChatML some tokenizers have a BOS (Hermes 3), most have none.
    return markup if markup.start else replace(markup, start=_opening(tokenizer, markup))


def check_markup(tokenizer: Tokenizer, markup: Markup) -> None:
    """The tokenizer has the markup's special tokens; it would take them for words otherwise.

    Raises:
      ValueError: it lacks some.
    """
    missing = _missing(tokenizer, markup)
    if missing:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer lacks the special tokens {missing} of the prompt "
            f"{markup.open('user')!r} ... {markup.end!r}; use the value model's own tokenizer"
        )


def read_markup(recorded: Any, source: str) -> Markup | None:
    """What a value model recorded of its markup; None: nothing, as in the published ones.

    Args:
      recorded: JSON.
      source: the file that it stands in.

    Raises:
      ValueError: something else than a markup.
    """
    if recorded is None:
        return None
    names = ("start", "header", "end")
    if (
        not isinstance(recorded, Mapping)
        or set(recorded) != set(names)
        or not all(isinstance(recorded[name], str) for name in names)
    ):
        raise ValueError(
            f"{source}: markup must be {{'start', 'header', 'end'}}, each a text, got {shown_value(recorded)}"
        )
    markup = Markup(*(recorded[name] for name in names))
    known = any((markup.header, markup.end) == (m.header, m.end) for m in MARKUPS.values())
    if not known:
        raise ValueError(
            f"{source}: markup is {shown_value(recorded)}, expected header and end of one of "
            f"{[m.to_json() for m in MARKUPS.values()]}"
        )
    return markup


def markup_of_set(meta: Mapping[str, Any], source: str, tokenizer: Tokenizer | None) -> Markup | None:
    """The markup of a set's prompts: the recorded one, else that of the base's tokenizer, None if unknown.

    Raises:
      ValueError: what is recorded is no markup.
    """
    return recorded_markup(read_markup(meta.get("markup"), source), tokenizer)


def recorded_markup(markup: Markup | None, tokenizer: Tokenizer | None) -> Markup | None:
    """What a value model records when it is saved: its markup, else its tokenizer's, None if unknown."""
    if markup is not None or tokenizer is None:
        return markup
    try:
        return markup_of(tokenizer)
    except ValueError:  # said when it is to be prompted
        return None


def _missing(tokenizer: Tokenizer, markup: Markup) -> list[str]:
    return [token for token in markup.special_tokens if len(exact_ids(tokenizer, token)) != 1]


def _is_written(tokenizer: Tokenizer, markup: Markup) -> bool:
    """Whether the chat template marks a user's turn so."""
    text = _probe(tokenizer, [{"role": "user", "content": "a"}])
    return f"{markup.open('user')}a{markup.end.strip()}" in text


def _opening(tokenizer: Tokenizer, markup: Markup) -> str:
    bos = str(tokenizer.bos_token or "")
    system, user = ({"role": role, "content": "a"} for role in ("system", "user"))
    before, header, _ = _probe(tokenizer, [system, user]).partition(markup.open("system"))
    if header:
        return bos if before == bos else ""
    return bos if bos and opening_ids(tokenizer) == exact_ids(tokenizer, bos) else ""


def _probe(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    """What the template makes of messages; "" if there is none, or it refuses them."""
    if not tokenizer.chat_template:
        return ""
    try:
        return render(tokenizer, messages, add_generation_prompt=True)
    except ValueError:
        return ""
