"""The shapes of what is answered, for the OpenAPI document: tests hold real answers against them.

A field with a default is one that is there only where it was asked for.
"""

from typing import Annotated, Any, Literal

from sia_jax.extras import installed_with

with installed_with("serve"):
    from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[int, Field(ge=0)]
Nats = float | None
"""None: there is no such number, or it is not finite."""
Reason = Literal["stop", "length", "abort"]


class Answer(BaseModel):
    """What all have in common: no field that is not named."""

    model_config = ConfigDict(extra="forbid")


class ErrorFields(Answer):
    """What went wrong."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    """The field of the body that it is about."""
    code: str | None


class ErrorAnswer(Answer):
    """Of every status that is no success."""

    error: ErrorFields


class Seed(Answer):
    """What a response was drawn with."""

    seed: Number


class CachedTokens(Answer):
    """Of prompts: those that rows held already."""

    cached_tokens: Number


class ReasoningTokens(Answer):
    """None are told apart."""

    reasoning_tokens: Number


class SteeringUsage(Answer):
    """What was steered, over all choices."""

    steered: Number
    shifted: Number
    contenders: Number
    values_read: Number
    value_tokens: Number
    mean_entropy: Nats


class Usage(Answer):
    """Tokens up to a chunk."""

    prompt_tokens: Number
    completion_tokens: Number
    total_tokens: Number
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens


class SteeredUsage(Usage):
    """Tokens, and what was steered."""

    sia: SteeringUsage


class Candidate(Answer):
    """At a junction."""

    id: Number
    text: str
    policy_logprob: Nats
    value: float | None
    logprob: Nats


class TracedToken(Answer):
    """What happened at a token."""

    id: Number
    text: str
    entropy: Nats
    junction: bool
    shifted: bool
    policy_logprob: Nats
    logprob: Nats
    value: float | None
    contenders: Number
    values_read: Number
    policy_choice: int = 0
    candidates: list[Candidate] = []


class Trace(Answer):
    """Of a choice."""

    trace: list[TracedToken]


class CompletionLogprobs(Answer):
    """Of /v1/completions: an entry a token."""

    tokens: list[str]
    token_logprobs: list[Nats]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[Number]


class TokenLogprob(Answer):
    """A token that might have been."""

    token: str
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None
    logprob: float


class ChosenLogprob(TokenLogprob):
    """A token that was."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Answer):
    """Of /v1/chat/completions."""

    content: list[ChosenLogprob]
    refusal: None


class Part(Answer):
    """What the choices of whole responses and of chunks have."""

    index: Number
    token_ids: list[Number] = []
    sia: Trace = Trace(trace=[])


class CompletionPart(Part):
    """Of a chunk of /v1/completions."""

    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Reason | None


class CompletionChoice(CompletionPart):
    """Of /v1/completions."""

    finish_reason: Reason


class ChatDelta(Answer):
    """What is new of a message; the role in its first chunk."""

    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChatPart(Part):
    """Of a chunk of /v1/chat/completions."""

    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Reason | None


class ChatMessage(Answer):
    """The assistant's."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Part):
    """Of /v1/chat/completions."""

    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class Generated(Answer):
    """What all that is generated has."""

    id: str
    created: Number
    model: str
    sia: Seed
    prompt_token_ids: list[Number] | list[list[Number]] = []


class CompletionAnswer(Generated):
    """Of /v1/completions."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: SteeredUsage


class CompletionChunk(Generated):
    """Of a stream of /v1/completions."""

    object: Literal["text_completion"]
    choices: list[CompletionPart]
    usage: SteeredUsage | Usage | None = None


class ChatAnswer(Generated):
    """Of /v1/chat/completions."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: SteeredUsage


class ChatChunk(Generated):
    """Of a stream of /v1/chat/completions."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatPart]
    usage: SteeredUsage | Usage | None = None


class ModelAnswer(Answer):
    """A name, and under `sia` the numbers that it stands for."""

    id: str
    object: Literal["model"]
    created: Number
    owned_by: str
    max_model_len: Number
    sia: dict[str, Any]


class ModelsAnswer(Answer):
    """All names."""

    object: Literal["list"]
    data: list[ModelAnswer]


class TokenizeAnswer(Answer):
    """Of /tokenize."""

    count: Number
    max_model_len: Number
    tokens: list[Number]
    token_strs: list[str] | None


class DetokenizeAnswer(Answer):
    """Of /detokenize."""

    prompt: str


class HealthAnswer(Answer):
    """With status 200 when the server is ready, 503 else."""

    status: Literal["starting", "ready", "draining", "dead"]


class VersionAnswer(Answer):
    """Of sia_jax."""

    version: str


class LoadAnswer(Answer):
    """Replies."""

    server_load: Number
    running: Number
    waiting: Number
