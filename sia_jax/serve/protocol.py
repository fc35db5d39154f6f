"""The bodies of requests, field by field; what a field means that is not OpenAI's is said in docs/api.md.

A field that is null is as one that is left out. One that this server does not do is refused by name, but for
the values that ask for nothing, such as `tools: []`.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from sia_jax.extras import installed_with
from sia_jax.serve.errors import ApiError, invalid

with installed_with("serve"):
    from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
    from pydantic import model_validator as whole

MAX_STOPS = 16
"""Stop texts of a request."""
MAX_STOP_CHARACTERS = 1_000
"""Of one stop text: each is looked for in all that is said."""
MAX_LOGPROBS = 20
MAX_BIAS = 100.0
"""Nats; -100 and below is never."""

Prompt = str | list[str] | list[int] | list[list[int]]
"""A text, several, ids, or several lists of them."""

_PROMPTS = "must be a text, a list of texts, ids or a list of lists of ids"


def _prompt(value: Any) -> Any:
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else []
    if not parts:
        raise ValueError(_PROMPTS)
    lists = [part if isinstance(part, list) else [part] for part in parts]
    kinds = {type(part) for part in parts} | {type(x) for part in lists for x in part}
    if kinds not in ({str}, {int}, {list, int}):
        raise ValueError(_PROMPTS)
    if not all(lists) or any(x < 0 or x >= 2**31 for part in lists for x in part if isinstance(x, int)):
        raise ValueError("must have ids of 0 or more, and one or more in each list")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError('must be a number, "inf" or "-inf"')
    return float(value)


_NUMBER_SCHEMA = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf"]}, {"type": "null"}]}
_IDS_SCHEMA = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31},
    "minItems": 1,
}
_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        _IDS_SCHEMA,
        {"type": "array", "items": _IDS_SCHEMA, "minItems": 1},
    ]
}
_EXAMPLE = "How do I bake bread?"
_MESSAGE_SCHEMA = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "user", "assistant"]},
        "content": {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["type", "text"],
                        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                        "additionalProperties": {"type": "null"},
                    },
                },
            ]
        },
    },
    "additionalProperties": {"type": "null"},
}
_Messages = Annotated[
    list[Annotated[dict[str, Any], WithJsonSchema(_MESSAGE_SCHEMA)]],
    Field(min_length=1, examples=[[{"role": "user", "content": _EXAMPLE}]]),
]
_StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
_StopTexts = Annotated[list[_StopText], Field(max_length=MAX_STOPS)]
_Id = Annotated[int, Field(ge=0, lt=2**31)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Body(BaseModel):
    """What all have in common: no unknown field, and no value that is taken for another."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Body):
    """What a stream tells of usage."""

    include_usage: bool | None = None
    """A last chunk without choices that has the usage of all."""
    continuous_usage_stats: bool | None = None
    """Usage up to then in every chunk."""


class Steering(Body):
    """The steering of a request, over that of the model's name."""

    threshold: Annotated[
        Any, BeforeValidator(lambda x: None if x is None else _number(x)), WithJsonSchema(_NUMBER_SCHEMA)
    ] = None
    """Nats; "-inf" steers every token, "inf" none."""
    beta: float | None = None
    bound: Annotated[float, Field(ge=0)] | None = None
    budget: Annotated[float, Field(ge=0, le=1)] | None = None
    trace: bool | None = None
    """Whether the answer says what happened at each token."""


class Generating(Body):
    """The fields that both ways of generating have."""

    model: str
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    stop: Annotated[
        _StopTexts | None, BeforeValidator(_stops, json_schema_input_type=_StopText | _StopTexts | None)
    ] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]] | None = None
    user: str | None = None
    """Taken and not used."""
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """-1 and 0: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=1e-30, le=1e30)] | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[_Id] | None = None
    return_token_ids: bool | None = None
    sia: Steering | None = None

    @whole(mode="after")
    def _fit(self) -> "Generating":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for stream: true alone")
        return self

    @property
    def trace(self) -> bool:
        """Whether every token is to be told of."""
        return self.sia is not None and bool(self.sia.trace)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk has the usage up to then."""
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)


class CompletionBody(Generating):
    """Of /v1/completions."""

    prompt: Annotated[
        Any, BeforeValidator(_prompt), WithJsonSchema(_PROMPT_SCHEMA), Field(examples=[_EXAMPLE])
    ]
    """See `Prompt`."""
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    best_of: int | None = None

    @whole(mode="after")
    def _fit_completion(self) -> "CompletionBody":
        if self.best_of not in (None, self.n or 1):
            raise ValueError(f"best_of must be n, {self.n or 1}: there is no ranking; ask for n choices")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens must be 1 or more; 0 is for echo, which scores the prompt alone")
        return self


class ChatBody(Generating):
    """Of /v1/chat/completions."""

    messages: _Messages
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Over max_tokens."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @whole(mode="after")
    def _fit_chat(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for logprobs: true alone")
        if self.max_tokens == 0:
            raise ValueError("max_tokens must be 1 or more")
        return self


class TokenizeBody(Body):
    """Of /tokenize: a text, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: _Messages | None = None
    add_special_tokens: bool | None = None
    """Of a text: whether what the tokenizer puts in front is there; null: it is."""
    return_token_strs: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @whole(mode="after")
    def _fit_tokenize(self) -> "TokenizeBody":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt or messages is needed, and not both")
        if self.messages is None and self.chat_template_kwargs:
            raise ValueError("chat_template_kwargs is for messages")
        if self.prompt is None and self.add_special_tokens is not None:
            raise ValueError("add_special_tokens is for prompt; a conversation's template has them")
        return self


class DetokenizeBody(Body):
    """Of /detokenize."""

    model: str | None = None
    tokens: list[_Id]


_TOOLS = "tools are not called here"
_TEXT_ALONE = "text is all that is generated"
_NO_GRAMMAR = "generation is not constrained to a grammar or a schema"
_NOT_HOSTED = "this server keeps nothing and routes nowhere"
UNSUPPORTED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), _TOOLS),
    "tool_choice": (("none", "auto"), _TOOLS),
    "functions": (([],), _TOOLS),
    "function_call": (("none", "auto"), _TOOLS),
    "parallel_tool_calls": ((), _TOOLS),
    "response_format": (({"type": "text"},), _NO_GRAMMAR),
    "structured_outputs": ((), _NO_GRAMMAR),
    "guided_json": ((), _NO_GRAMMAR),
    "guided_regex": ((), _NO_GRAMMAR),
    "guided_choice": ((), _NO_GRAMMAR),
    "guided_grammar": ((), _NO_GRAMMAR),
    "audio": ((), _TEXT_ALONE),
    "modalities": ((["text"],), _TEXT_ALONE),
    "prediction": ((), "no output is predicted"),
    "web_search_options": ((), "nothing is searched for"),
    "reasoning_effort": ((), "give chat_template_kwargs, such as enable_thinking"),
    "verbosity": ((), "ask for it in the prompt"),
    "moderation": ((), "nothing is moderated"),
    "store": ((False,), _NOT_HOSTED),
    "metadata": (({},), _NOT_HOSTED),
    "service_tier": (("auto", "default"), _NOT_HOSTED),
    "prompt_cache_key": ((), _NOT_HOSTED),
    "prompt_cache_options": ((), _NOT_HOSTED),
    "prompt_cache_retention": ((), _NOT_HOSTED),
    "safety_identifier": ((), _NOT_HOSTED),
    "suffix": (("",), "text is not filled in between"),
    "use_beam_search": ((False,), "replies are sampled"),
    "prompt_logprobs": ((), "give echo, with logprobs"),
    "add_generation_prompt": ((True,), "a reply is what is generated"),
    "continue_final_message": ((False,), "a conversation ends with the user"),
    "chat_template": ((), "the checkpoint's own is used"),
    "documents": (([],), "write them into a message"),
    "skip_special_tokens": ((True,), "texts are without special tokens; return_token_ids has the ids"),
    "spaces_between_special_tokens": ((True,), "texts are without special tokens"),
    "include_stop_str_in_output": ((False,), "a stop text is no part of the reply"),
    "length_penalty": ((1, 1.0), "there is no beam search"),
    "bad_words": (([],), "ban ids by a logit_bias of -100"),
    "allowed_token_ids": ((), "ban the others by a logit_bias of -100"),
    "truncate_prompt_tokens": ((), "nothing is cut; a prompt that is too long is refused"),
    "priority": ((0,), "requests are taken in turn"),
    "thinking_token_budget": ((), "give max_tokens"),
}
"""What others do and this server does not: the values that ask for nothing, and why the rest is refused."""

Kind = TypeVar("Kind", bound=Body)


def read_body(kind: type[Kind], fields: Mapping[str, Any]) -> Kind:
    """A body, checked.

    Args:
      kind: what it is to be.
      fields: the object that came.

    Raises:
      ApiError: 400, of the first field that cannot be; `param` names it.
    """
    known = {}
    for name, value in fields.items():
        neutral, why = UNSUPPORTED.get(name, ((), ""))
        if name not in UNSUPPORTED or name in kind.model_fields:
            known[name] = value
        elif value is not None and not any(_same(value, one) for one in neutral):
            raise ApiError(400, f"{name} is not supported: {why}", param=name, code="unsupported_parameter")
    try:
        return kind.model_validate(known)
    except ValidationError as error:
        raise invalid(error) from None


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
