"""Conversations as token ids: the policy's prompt, the value model's own prompt, a reward model's input.

Contents are text and are taken as they are: a "Human:" inside one begins no turn. The text of a special token
("<|im_end|>", say) does become that token, here as in the chat templates of transformers; who must not let a
user write one has to remove it first.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sia_jax.text.forms import PromptForm
from sia_jax.text.markup import Markup, check_markup, markup_of
from sia_jax.text.omissions import check_words
from sia_jax.text.templates import names_read, render
from sia_jax.text.tokenizer import Tokenizer, exact_ids, opened_ids

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""


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
    chat_template: str | None = None,
    **variables: Any,
) -> list[int]:
    """The ids after which the policy writes its reply.

    In form "chat" they are those of `apply_chat_template`, with what the tokenizer puts in front of every
    text if the template does not write it: one BOS, whichever of the two provides it. What a tokenizer would
    add behind a text, such as an EOS, is in neither form.

    Args:
      tokenizer: the policy's.
      messages: ends with the user.
      form: "chat", the checkpoint's own template, or "raw", `raw_prompt_text`; see
        `sia_jax.text.forms.prompt_form`.
      enable_thinking: of Qwen3's template: False puts an empty think block in front of the reply. A template
        without the switch takes False alone.
      chat_template: the name of one of several templates that the checkpoint has; None: its default one.
      **variables: further variables of the template, such as date_string="26 Jul 2024" for Llama 3,
        whose template otherwise may write today's date.

    Raises:
      sia_jax.text.templates.TemplateRefusal: the template refuses these messages, or leaves one of them out.
      ValueError: not a conversation, no chat template, one that is broken or that leaves out what the user
        says, or a variable that it does not know.
    """
    # Templates test `enable_thinking is false`: 0, None or "false" would switch thinking on.
    if not isinstance(enable_thinking, bool):
        raise ValueError(f"enable_thinking must be True or False, got {enable_thinking!r}")
    if form == "raw":
        given = {"enable_thinking": enable_thinking, "chat_template": chat_template is not None}
        unused = [*(name for name, is_given in given.items() if is_given), *variables]
        if unused:
            raise ValueError(f"form 'raw' has no template for {unused}; drop them, or use form 'chat'")
        return opened_ids(tokenizer, raw_prompt_text(messages))
    if form != "chat":
        raise ValueError(f"form must be 'chat' or 'raw', got {form!r}")
    check_messages(messages)
    if not tokenizer.chat_template:
        raise ValueError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; use form='raw'")
    # Off is what a template without the switch does; on it cannot be.
    _check_variables(
        tokenizer, chat_template, [*variables, *(["enable_thinking"] if enable_thinking else [])]
    )
    options: dict[str, Any] = {"enable_thinking": enable_thinking, **variables}
    text = _rendered(tokenizer, messages, add_generation_prompt=True, chat_template=chat_template, **options)
    return opened_ids(tokenizer, text)


def raw_prompt_text(messages: Sequence[Message]) -> str:
    r"""The official prompt of a base model, "Human:\n{user}\nAssistant:\n".

    Further turns go on in the same way; a system message comes first, as a paragraph of its own.

    Raises:
      ValueError: not a conversation that ends with the user.
    """
    check_messages(messages)
    openings = {"system": "{}\n\n", "user": "Human:\n{}\n", "assistant": "Assistant:\n{}\n"}
    return "".join(openings[m["role"]].format(m["content"]) for m in messages) + "Assistant:\n"


def value_prompt_text(messages: Sequence[Message], markup: Markup) -> str:
    """The prompt of a value model: the turns in its markup, and the opened turn of the assistant.

    This is not what the checkpoint's chat template makes of the conversation: no think block, no date, and
    contents are not trimmed. On one user turn it is byte for byte what the official code trains on; when that
    code decodes, it also trims the content, cuts it at a "Human:" or "Assistant:", and drops all other turns.

    Args:
      messages: ends with the user.
      markup: the value model's.

    Raises:
      ValueError: not a conversation.
    """
    check_messages(messages)
    turns = "".join(markup.open(m["role"]) + m["content"] + markup.end for m in messages)
    return markup.start + turns + markup.open("assistant")


def value_prompt(
    tokenizer: Tokenizer, messages: Sequence[Message], markup: Markup | None = None
) -> list[int]:
    """The ids of `value_prompt_text`, with nothing added: a markup with a BOS has it in the text.

    Args:
      tokenizer: the value model's.
      messages: ends with the user.
      markup: the value model's; None: the tokenizer's (`sia_jax.text.markup.markup_of`).

    Raises:
      ValueError: not a conversation, or a tokenizer without the markup's special tokens.
    """
    check_messages(messages)
    if markup is None:
        markup = markup_of(tokenizer)
    check_markup(tokenizer, markup)
    return exact_ids(tokenizer, value_prompt_text(messages, markup))


def reward_conversation(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    chat_template: str | None = None,
    **variables: Any,
) -> list[int]:
    """The ids of a finished conversation for a reward model: those of `apply_chat_template`.

    What the tokenizer puts in front of every text is there once, as in `policy_prompt`; nothing stands behind
    the template's text, so that the reward is read where the model learnt to give it.

    Args:
      tokenizer: the reward model's.
      messages: ends with the assistant.
      chat_template: the name of one of several templates that the checkpoint has; None: its default one.
      **variables: further variables of the template, such as date_string="26 Jul 2024" for Llama 3,
        whose template otherwise may write today's date.

    Raises:
      sia_jax.text.templates.TemplateRefusal: the template refuses these messages, or leaves one of them out.
      ValueError: not a finished conversation, no chat template, one that is broken or that leaves out a
        question or a reply, or a variable that it does not know.
    """
    check_messages(messages, last="assistant")
    if not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template, which scoring needs; "
            "use the reward model's own tokenizer"
        )
    _check_variables(tokenizer, chat_template, list(variables))
    return opened_ids(tokenizer, _rendered(tokenizer, messages, chat_template=chat_template, **variables))


def _rendered(tokenizer: Tokenizer, messages: Sequence[Message], **options: Any) -> str:
    text = render(tokenizer, messages, **options)
    check_words(tokenizer, messages, **options)
    return text


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


def _check_variables(tokenizer: Tokenizer, chat_template: str | None, given: list[str]) -> None:
    # A variable that the template never reads would be dropped without a word, a misspelt one too.
    if given and (unknown := [name for name in given if name not in names_read(tokenizer, chat_template)]):
        raise ValueError(f"{tokenizer.name_or_path}: the chat template has no variables {unknown}; drop them")
