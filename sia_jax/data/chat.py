"""Conversations as token ids: the policy's prompt, the value model's own prompt, a reward model's input.

Contents are text and are taken as they are: a "Human:" inside one begins no turn. The text of a special token
("<|im_end|>", say) does become that token, here as in the chat templates of transformers; who must not let a
user write one has to remove it first.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, cast

from sia_jax.models.config import Family

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:
    Tokenizer = Any  # transformers takes seconds to import; who passes a tokenizer has paid them

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""

PromptForm = Literal["chat", "raw"]
"""How a policy is prompted: by its checkpoint's chat template, or as plain text."""


@dataclass(frozen=True)
class _Markup:
    """How a family marks turns."""

    start: str
    """Opens the text."""
    header: str
    """Opens a turn."""
    end: str
    """Closes a turn."""

    def open(self, role: str) -> str:
        return self.header.format(role=role)

    @property
    def special_tokens(self) -> list[str]:
        return re.findall(r"<\|\w+\|>", self.start + self.header + self.end)


_MARKUP: dict[Family, _Markup] = {
    "qwen3": _Markup("", "<|im_start|>{role}\n", "<|im_end|>\n"),
    "llama": _Markup("<|begin_of_text|>", "<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>"),
}


def check_messages(messages: Sequence[Message], *, last: Literal["user", "assistant"] = "user") -> None:
    """Check that messages are a conversation: a system message or none, then user and assistant in turn.

    Args:
      messages: the conversation.
      last: whose turn must end it: "user" if a reply is to be generated, "assistant" if it is finished.

    Raises:
      ValueError: no list or an empty one, an unknown role or key, a content that is not text, turns out of
        order.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(
            f'messages must be a list like [{{"role": "user", "content": "..."}}], got {messages!r}'
        )
    expected = "user"
    for index, message in enumerate(messages):
        name = f"messages[{index}]"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            got = sorted(map(str, message)) if isinstance(message, Mapping) else message
            raise ValueError(f"{name} must have the keys 'role' and 'content' and no other, got {got!r}")
        role, content = message["role"], message["content"]
        _check_content(name, content)
        if role == "system":
            if index > 0:
                raise ValueError(f"{name} is a system message, which may only be the first; move it there")
            continue
        if role not in ("user", "assistant"):
            raise ValueError(f"{name} has role {role!r}, expected 'system', 'user' or 'assistant'")
        if role != expected:
            raise ValueError(
                f"{name} is from the {role}, expected the {expected}: the user begins and the two alternate; "
                "join neighbouring turns of one role into one"
            )
        expected = "assistant" if role == "user" else "user"
    if messages[-1]["role"] != last:
        why = "a reply is to be generated" if last == "user" else "the conversation is to be finished"
        raise ValueError(f"messages end with the {messages[-1]['role']}, expected the {last}: {why}")


def policy_prompt(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    form: PromptForm,
    enable_thinking: bool = False,
    **template_kwargs: Any,
) -> list[int]:
    """The ids after which the policy writes its reply.

    In form "chat" the template's text is tokenised as it is, and the BOS that a tokenizer puts in front of
    every text is added if the template wrote none: one BOS, whichever of the two provides it. (The official
    code cuts the template's, and has the tokenizer add its own.)

    Args:
      tokenizer: the policy's.
      messages: ends with the user.
      form: "chat", the checkpoint's own template, or "raw", `raw_prompt_text`; see `prompt_form`.
      enable_thinking: of Qwen3's template: False puts an empty think block in front of the reply. A template
        without the switch takes False alone.
      **template_kwargs: further variables of the template, such as date_string="26 Jul 2024" for Llama 3,
        whose template otherwise may write today's date.

    Raises:
      ValueError: not a conversation, no chat template, or a variable that the template does not know.
    """
    # Templates test `enable_thinking is false`: 0, None or "false" would switch thinking on.
    if not isinstance(enable_thinking, bool):
        raise ValueError(f"enable_thinking must be True or False, got {enable_thinking!r}")
    if form == "raw":
        if enable_thinking or template_kwargs:
            given = [*(["enable_thinking"] if enable_thinking else []), *template_kwargs]
            raise ValueError(f"form 'raw' has no template for {given}; drop them, or use form 'chat'")
        return tokenizer.encode(raw_prompt_text(messages))
    if form != "chat":
        raise ValueError(f"form must be 'chat' or 'raw', got {form!r}")
    check_messages(messages)
    if not tokenizer.chat_template:
        raise ValueError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; use form='raw'")
    # Off is what a template without the switch does; on it cannot be.
    _check_template_kwargs(
        tokenizer, template_kwargs | ({"enable_thinking": True} if enable_thinking else {})
    )
    text = _apply_template(
        tokenizer, messages, add_generation_prompt=True, enable_thinking=enable_thinking, **template_kwargs
    )
    ids = tokenizer.encode(text, add_special_tokens=False)
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and tokenizer.encode("")[:1] == [bos]
    return [bos, *ids] if adds_bos and ids[:1] != [bos] else ids


def date_variables(
    tokenizer: Tokenizer, date_string: str | None, name: str, option: str = "--date-string"
) -> dict[str, str]:
    """The template's variable for the date, for runs whose texts must be the same tomorrow.

    Args:
      tokenizer: a checkpoint's.
      date_string: what the template is to write, such as "26 Jul 2024"; None: it writes no date.
      name: what the error calls the checkpoint.
      option: how a user gives the date.

    Raises:
      ValueError: no date, and the template would write today's.
    """
    if date_string is not None:
        return {"date_string": date_string}
    if tokenizer.chat_template and "strftime_now" in tokenizer.get_chat_template():
        raise ValueError(
            f"{name}: the chat template writes today's date into every conversation, and so another one "
            f'tomorrow; fix it with {option} (in Python date_string=), e.g. "26 Jul 2024"'
        )
    return {}


def raw_prompt_text(messages: Sequence[Message]) -> str:
    r"""The official prompt of a base model, "Human:\n{user}\nAssistant:\n".

    Further turns go on in the same way; a system message comes first, as a paragraph of its own.

    Raises:
      ValueError: not a conversation that ends with the user.
    """
    check_messages(messages)
    openings = {"system": "{}\n\n", "user": "Human:\n{}\n", "assistant": "Assistant:\n{}\n"}
    return "".join(openings[m["role"]].format(m["content"]) for m in messages) + "Assistant:\n"


def prompt_form(name: str, tokenizer: Tokenizer) -> PromptForm:
    """How the official code prompts a checkpoint: "raw" for base models, whose template nobody trained.

    A base model is a Qwen3 with "Base" in its name or a Llama without "Instruct"; so is, whatever its name, a
    checkpoint without a chat template.

    Args:
      name: path or Hub id; only its last part counts.
      tokenizer: the checkpoint's.
    """
    last = PurePath(name).name
    base = "Base" in last if "Qwen3" in last else "Llama" in last and "Instruct" not in last
    return "raw" if base or not tokenizer.chat_template else "chat"


def value_prompt_text(messages: Sequence[Message], family: Family) -> str:
    """The prompt of a value model: the turns in the family's markup, and the opened turn of the assistant.

    This is not what the checkpoint's chat template makes of the conversation: no think block, no date, and
    contents are not trimmed. On one user turn it is byte for byte what the official code trains on; when that
    code decodes, it also trims the content, cuts it at a "Human:" or "Assistant:", and drops all other turns.

    Args:
      messages: ends with the user.
      family: of the value model's backbone.

    Raises:
      ValueError: not a conversation, or an unknown family.
    """
    check_messages(messages)
    markup = _markup(family)
    turns = "".join(markup.open(m["role"]) + m["content"] + markup.end for m in messages)
    return markup.start + turns + markup.open("assistant")


def value_prompt(tokenizer: Tokenizer, messages: Sequence[Message], family: Family) -> list[int]:
    """The ids of `value_prompt_text`, with nothing added: a family with a BOS has it in the text.

    Args:
      tokenizer: the value model's.
      messages: ends with the user.
      family: of the value model's backbone.

    Raises:
      ValueError: not a conversation, an unknown family, or a tokenizer without the family's special tokens.
    """
    text = value_prompt_text(messages, family)
    # A tokenizer of another family would take the marks for words.
    missing = _missing_tokens(tokenizer, family)
    if missing:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer lacks the special tokens {missing} of family "
            f"{family!r}; use the value model's own tokenizer"
        )
    return tokenizer.encode(text, add_special_tokens=False)


def turn_end(family: Family) -> str:
    """The special token that closes a turn, and with it a complete reply.

    Raises:
      ValueError: an unknown family.
    """
    return _markup(family).end.strip()


def family_of(tokenizer: Tokenizer) -> Family:
    """The family whose special tokens a tokenizer has.

    Raises:
      ValueError: it has those of none, or of several.
    """
    found = [family for family in _MARKUP if not _missing_tokens(tokenizer, family)]
    if len(found) != 1:
        tokens = {family: _markup(family).special_tokens for family in _MARKUP}
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has the special tokens of {found or 'no family'}, "
            f"expected those of one of {tokens}; use the value model's own tokenizer"
        )
    return found[0]


def reward_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], **template_kwargs: Any
) -> list[int]:
    """The ids of a finished conversation for a reward model, as the Skywork-Reward-V2 cards make them.

    The checkpoint's chat template without a generation prompt; the BOS that it writes is cut and comes back
    from the tokenizer.

    Args:
      tokenizer: the reward model's.
      messages: ends with the assistant.
      **template_kwargs: further variables of the template, such as date_string="26 Jul 2024" for Llama 3,
        whose template otherwise may write today's date.

    Raises:
      ValueError: not a finished conversation, no chat template, or a variable that the template does not
        know.
    """
    check_messages(messages, last="assistant")
    if not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template, which scoring needs; "
            "use the reward model's own tokenizer"
        )
    _check_template_kwargs(tokenizer, template_kwargs)
    text = _apply_template(tokenizer, messages, **template_kwargs)
    return tokenizer.encode(text.removeprefix(tokenizer.bos_token or ""))


def _check_content(name: str, content: Any) -> None:
    if not isinstance(content, str):
        raise ValueError(f"{name}: content must be a string, got {type(content).__name__}")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: content holds half a surrogate pair at {error.start}, which is no character; "
            "decode the text again or replace it"
        ) from None


def _markup(family: Family) -> _Markup:
    if family not in _MARKUP:
        raise ValueError(f"family must be one of {sorted(_MARKUP)}, got {family!r}")
    return _MARKUP[family]


def _missing_tokens(tokenizer: Tokenizer, family: Family) -> list[str]:
    special = dict.fromkeys(_markup(family).special_tokens)
    return [token for token in special if len(tokenizer.encode(token, add_special_tokens=False)) != 1]


def _check_template_kwargs(tokenizer: Tokenizer, template_kwargs: dict[str, Any]) -> None:
    # A variable that the template never reads would be dropped without a word, a misspelt one too.
    template = tokenizer.get_chat_template()
    unknown = [name for name in template_kwargs if not re.search(rf"\b{re.escape(name)}\b", template)]
    if unknown:
        raise ValueError(f"{tokenizer.name_or_path}: the chat template has no variables {unknown}; drop them")


def _apply_template(tokenizer: Tokenizer, messages: Sequence[Message], **template_kwargs: Any) -> str:
    conversation = [dict(message) for message in messages]
    return cast(str, tokenizer.apply_chat_template(conversation, tokenize=False, **template_kwargs))
