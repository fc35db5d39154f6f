"""How a policy is prompted, by chat template or as plain text, thinking or not, on which date; and why."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sia_jax.text.omissions import check_words
from sia_jax.text.templates import names_read, render
from sia_jax.text.tokenizer import Tokenizer

PromptForm = Literal["chat", "raw"]
"""By the checkpoint's chat template, or as plain text."""

# The paper's base models, whose chat template, where there is one, nobody trained.
_BASE = re.compile(r"Qwen3-[0-9.]+B(-A[0-9]+B)?-Base|(Meta-)?Llama-3(\.[0-9])?-[0-9]+B")

_DATE = "\u27e8date\u27e9"  # nothing that a template writes by itself


@dataclass(frozen=True)
class Prompting:
    """How the prompts of a run are made, once that is settled."""

    form: PromptForm
    thinking: bool
    date_string: str | None
    """What the template writes; None: no date."""
    why: tuple[str, ...]
    """What it came to, and why: one line for each choice that was made for the user."""

    @property
    def variables(self) -> dict[str, Any]:
        """Of the template, for `policy_prompt`."""
        date = {} if self.date_string is None else {"date_string": self.date_string}
        return date | ({"enable_thinking": self.thinking} if self.form == "chat" or self.thinking else {})


def prompt_form(name: str, tokenizer: Tokenizer) -> PromptForm:
    """The form of a policy's prompts: a chat template decides, but for the paper's base models.

    Those are prompted as the official code does, "raw", by exactly their published names: Qwen3-...-Base, and
    Llama-3... without Instruct. A checkpoint of another name has its template, whatever the name contains.

    Args:
      name: of the checkpoint (`sia_jax.checkpoints.hub.checkpoint_name`), or a path or Hub id.
      tokenizer: the checkpoint's.
    """
    return _automatic(name, tokenizer)[0]


def settle(
    name: str,
    tokenizer: Tokenizer,
    *,
    form: Literal["auto", "chat", "raw"] = "auto",
    thinking: bool = False,
    date_string: str | None = None,
    official: bool = False,
    option: str = "--date-string",
) -> Prompting:
    """What a run's options come to for this policy.

    Args:
      name: of the checkpoint.
      tokenizer: the checkpoint's.
      form: "auto": the official raw form with `official`, else `prompt_form`.
      thinking: whether a policy that can think does.
      date_string: what the template is to write as today's date.
      official: whether everything is to be as in the official code.
      option: how a user gives the date.

    Raises:
      ValueError: a template that writes today's date and so another one tomorrow, one that cannot be read, or
        one that leaves out what the user says.
    """
    chosen, why = (form, "as told") if form != "auto" else _automatic(name, tokenizer)
    if form == "auto" and official:
        chosen, why = "raw", "the official code's, with --preset official"
    if chosen == "raw" or not tokenizer.chat_template:
        text = "Human: ... Assistant:" if chosen == "raw" else "the chat template"
        return Prompting(chosen, thinking, date_string, (f"prompt form: {chosen}, {text} ({why})",))
    lines = [f"prompt form: chat, the checkpoint's template ({why})"]
    reads = names_read(tokenizer)
    if "enable_thinking" in reads and not thinking:
        lines.append("thinking: off, enable_thinking=False (the default; --thinking lets it think)")
    date = date_variables(tokenizer, date_string, name, option).get("date_string")
    if date is not None and date_string is None:
        lines.append(f"date: {date} (the template's own; {option} sets another)")
    found = Prompting(chosen, thinking, date, tuple(lines))
    question = [{"role": "user", "content": ""}]
    check_words(tokenizer, question, add_generation_prompt=True, **found.variables)
    return found


def date_variables(
    tokenizer: Tokenizer, date_string: str | None, name: str, option: str = "--date-string"
) -> dict[str, str]:
    """The template's variable for the date, for runs whose texts must be the same tomorrow.

    Args:
      tokenizer: a checkpoint's.
      date_string: what the template is to write, such as "26 Jul 2024"; None: what it writes by itself.
      name: what the error calls the checkpoint.
      option: how a user gives the date.

    Returns:
      {"date_string": ...}; nothing for a template that writes no date, or one that cannot be told.

    Raises:
      ValueError: no date, and the template would write today's.
    """
    if date_string is not None:
        return {"date_string": date_string}
    if not tokenizer.chat_template:
        return {}
    reads = names_read(tokenizer)
    if "strftime_now" in reads:
        remedy = f'fix it with {option} (in Python date_string=), e.g. "26 Jul 2024"'
        if "date_string" not in reads:
            remedy = "it takes no date_string, so write a fixed date into the checkpoint's template"
        raise ValueError(
            f"{name}: the chat template writes today's date into every conversation, and so another one "
            f"tomorrow; {remedy}"
        )
    own = _own_date(tokenizer) if "date_string" in reads else None
    return {} if own is None else {"date_string": own}


def unsettled(settings: Mapping[str, Any]) -> str:
    """What to say of settings of a release that recorded "auto", and not what it came to; else ""."""
    if settings.get("prompt_form") != "auto":
        return ""
    return "; an earlier release wrote prompt_form 'auto', which does not say how the policy was prompted"


def _automatic(name: str, tokenizer: Tokenizer) -> tuple[PromptForm, str]:
    last = name.rstrip("/").rpartition("/")[2]
    if _BASE.fullmatch(last):
        return "raw", f"{last} is a base model"
    if tokenizer.chat_template:
        return "chat", "the checkpoint has one"
    return "raw", "the checkpoint has no chat template"


def _own_date(tokenizer: Tokenizer) -> str | None:
    """The date that the template writes if none is given; None if that cannot be told."""
    messages = [{"role": "user", "content": "a"}]
    try:
        given = render(tokenizer, messages, add_generation_prompt=True, date_string=_DATE)
        own = render(tokenizer, messages, add_generation_prompt=True)
    except ValueError:
        return None
    before, found, after = given.partition(_DATE)
    if not found or not own.startswith(before) or not own.endswith(after):
        return None
    return own[len(before) : len(own) - len(after)] or None
