"""What is asked of an engine: a prompt, the numbers that it is replied to with, and where the reply ends."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from sia_jax.arguments import check_kind, check_real, check_whole, told
from sia_jax.engine.sampling_keys import words_of
from sia_jax.reprs import changed
from sia_jax.steering.gates import Gate
from sia_jax.steering.numbers import SamplingNumbers
from sia_jax.steering.tilts import Tilt
from sia_jax.text.chat import Message
from sia_jax.text.forms import PromptForm

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Request(SamplingNumbers):
    """A prompt and how to reply to it; what is None is as the engine has it.

    One of `messages`, `prompt` and `prompt_ids` is the prompt. The sampling numbers of
    `sia_jax.steering.numbers` (temperature, top_k, top_p, min_p, beta, the penalties, min_new_tokens) are
    fields too. Two requests of the same prompt, seed and numbers have the same reply, whatever else runs.
    """

    messages: Sequence[Message] | None = None
    """A conversation that ends with the user: [{"role": "user", "content": ...}]."""
    prompt: str | None = None
    """A text that the reply goes on with, as it is; both models read it."""
    prompt_ids: Sequence[int] | None = None
    """The ids that the policy reads."""
    value_ids: Sequence[int] | None = None
    """With `prompt_ids`: those that the value model reads; None: the same. Not looked at where it reads the
    policy's hidden states."""
    form: PromptForm | None = None
    """Of `messages`: "chat", the policy's template, or "raw"; None: `sia_jax.text.forms.prompt_form`."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template, such as enable_thinking=True."""

    threshold: float | None = None
    """Nats; -inf steers every token, inf none."""
    gate: Gate | None = None
    """The engine's gate with other numbers."""
    tilt: Tilt | None = None
    """Likewise."""
    max_new_tokens: int | None = None
    stop: Sequence[str] = ()
    """Texts that end the reply and are no part of it. A special token's text stands for the token."""
    stop_ids: Sequence[int] = ()
    """Ids that end it, beside those of the policy's end of text; they are its last token."""
    ignore_eos: bool = False
    """Whether the policy's end of text ends nothing."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Nats added to the logits of ids; -inf: the id is never said."""
    seed: int = 0
    key: jax.Array | None = None
    """A threefry2x32 key, in place of `seed`."""
    n: int = 1
    """Replies; of several, reply j draws with fold_in(key, j)."""
    deadline: float | None = None
    """Seconds after which the reply ends, from when the request is handed in."""

    def __post_init__(self) -> None:
        prompts = [name for name in ("messages", "prompt", "prompt_ids") if getattr(self, name) is not None]
        if len(prompts) != 1:
            raise ValueError(
                f"a request has one of messages, prompt and prompt_ids, got {' and '.join(prompts) or 'none'}"
            )
        if self.prompt is not None:
            check_kind("prompt", self.prompt, str, "a text; a conversation goes into messages")
        if self.value_ids is not None and self.prompt_ids is None:
            raise ValueError("value_ids go with prompt_ids; of messages and texts they are made")
        if self.messages is None and (self.form is not None or self.template):
            raise ValueError("form and template are for messages")
        for name in ("stop", "stop_ids"):
            given = getattr(self, name)
            if given is None or isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
                raise TypeError(f"{name} must be a list, got {told(given)}; nothing stops by ()")
            object.__setattr__(self, name, tuple(given))  # an iterator would be empty the next time
        for text in self.stop:
            check_kind("a text of stop", text, str, "a text; ids go into stop_ids")
        if "" in self.stop:
            raise ValueError("a stop text must not be empty")
        check_kind("logit_bias", self.logit_bias, Mapping, "{id: nats}")
        check_kind("template", self.template, Mapping, "variables of the template; none is {}")
        for id_ in (*self.stop_ids, *self.logit_bias):
            check_whole("an id of stop_ids or logit_bias", id_)
        if self.key is not None:
            words_of(self.key)
        if self.max_new_tokens is not None:
            check_whole("max_new_tokens", self.max_new_tokens)
        check_whole("n", self.n)
        check_whole("seed", self.seed)
        if self.n < 1:
            raise ValueError(f"n must be 1 or more, got {self.n}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed must lie in 0 .. 2**32 - 1, got {self.seed}")
        if self.deadline is not None:
            check_real("deadline", self.deadline)
            if not self.deadline > 0:
                raise ValueError(f"deadline must be over 0 seconds, got {self.deadline}")

    def __repr__(self) -> str:
        return changed(self)

    def override(self, **changes: Any) -> "Request":
        """This request with some fields replaced.

        Examples:
          >>> Request(prompt="Once upon a time", seed=1).override(n=2, threshold=0.8)
          Request(prompt='Once upon a time', threshold=0.8, seed=1, n=2)
        """
        return replace(self, **changes)


def as_request(asked: "str | Sequence[Message] | Request", **fields: Any) -> Request:
    """A text (what the user says), a conversation or a request, as a request.

    Args:
      asked: a text is one turn of a user.
      **fields: of the request, over those that it has.

    Raises:
      TypeError: something else, or a field that there is not.
      ValueError: what `Request` finds.
    """
    if isinstance(asked, Request):
        return asked.override(**fields) if fields else asked
    if isinstance(asked, str):
        return Request(messages=[{"role": "user", "content": asked}], **fields)
    messages: Any = asked
    if isinstance(messages, Sequence) and messages and all(isinstance(turn, Mapping) for turn in messages):
        return Request(messages=messages, **fields)
    raise TypeError(f"expected a text, a list of messages or a Request, got {told(asked)}")
