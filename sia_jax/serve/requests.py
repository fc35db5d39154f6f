"""From a body to what an engine is asked: first what needs no tokenizer, then the ids."""

import math
import secrets
from dataclasses import dataclass
from typing import Any

from sia_jax.engine.job import read_prompts
from sia_jax.engine.request import LARGEST_SEED, Request
from sia_jax.serve.errors import ApiError, refusal
from sia_jax.serve.presets import SteeringError, request_fields
from sia_jax.serve.protocol import MAX_BIAS, ChatBody, CompletionBody, Generating
from sia_jax.serve.service import Service
from sia_jax.text.messages import read_messages

COMPLETION_TOKENS = 16
"""Of a reply of /v1/completions that says nothing of it, as OpenAI has it."""
_OF_THE_TEMPLATE = frozenset(
    ("self", "messages", "tokenizer", "form", "add_generation_prompt", "chat_template", "tools", "documents")
)
"""What no client sets of a template."""


@dataclass(frozen=True)
class Plan:
    """What a body asks for, before any of it is tokenised."""

    requests: tuple[Request, ...]
    """One a prompt, as text, ids or messages."""
    texts: tuple[str | None, ...]
    """The prompts that came as texts."""
    n: int
    seed: int
    tokens: int
    """Of all prompts: ids as they are, a token for each 4 bytes of text."""
    scores_alone: bool = False
    """Whether nothing is generated."""

    @property
    def choices(self) -> int:
        """Replies that are asked for."""
        return self.n * len(self.requests)


def plan_completion(body: CompletionBody, service: Service) -> Plan:
    """What a body of /v1/completions asks for.

    Raises:
      ApiError: 400 or 404, what this server has no room or use for.
    """
    prompt = body.prompt
    parts = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    most = service.settings.max_batch_prompts
    if len(parts) > most:
        raise ApiError(400, f"prompt has {len(parts)} prompts, of at most {most}; split it", param="prompt")
    wanted = body.max_tokens
    if wanted is None:
        wanted = min(COMPLETION_TOKENS, service.settings.max_new_tokens or COMPLETION_TOKENS)
    _check_top(body.logprobs or 0, "logprobs", service)
    fields = _fields(body, service, wanted, "max_tokens")
    seed = _seed(body)
    asked = []
    for place, part in enumerate(parts):
        own = {"prompt": part} if isinstance(part, str) else {"prompt_ids": part}
        if not isinstance(part, str):
            _check_length(len(part), "prompt", service)
        asked.append(_request(fields | own | {"seed": (seed + place) % (LARGEST_SEED + 1)}))
    tokens = sum(_tokens(part) if isinstance(part, str) else len(part) for part in parts)
    texts = tuple(part if isinstance(part, str) else None for part in parts)
    return Plan(tuple(asked), texts, body.n or 1, seed, tokens, scores_alone=body.max_tokens == 0)


def plan_chat(body: ChatBody, service: Service) -> Plan:
    """What a body of /v1/chat/completions asks for.

    Raises:
      ApiError: 400 or 404, what this server has no room or use for.
    """
    _check_top(body.top_logprobs or 0, "top_logprobs", service)
    over = body.max_completion_tokens is not None
    wanted = body.max_completion_tokens if over else body.max_tokens
    fields = _fields(body, service, wanted, "max_completion_tokens" if over else "max_tokens")
    asked, tokens = conversation(body.messages, body.chat_template_kwargs, fields | {"seed": _seed(body)})
    return Plan((asked,), (None,), body.n or 1, asked.seed, tokens)


def conversation(
    messages: list[dict[str, Any]], template: dict[str, Any] | None, fields: dict[str, Any]
) -> tuple[Request, int]:
    """A request of messages, and about how many tokens they have.

    Raises:
      ApiError: 400, no conversation, or a variable that no client sets.
    """
    reserved = sorted(_OF_THE_TEMPLATE & set(template or {}))
    if reserved:
        raise ApiError(
            400, f"chat_template_kwargs must not set {', '.join(reserved)}", param="chat_template_kwargs"
        )
    try:
        read = read_messages(messages)
    except ValueError as error:
        raise ApiError(400, str(error), param="messages") from None
    if read[-1]["content"] is None:
        raise ApiError(400, "messages: the last one's content must be a text, got null", param="messages")
    tokens = sum(_tokens(str(message["content"])) for message in read)
    return _request(fields | {"messages": read, "template": dict(template or {})}), tokens


def tokenise(plan: Plan, service: Service) -> list[Request]:
    """The requests of a plan, in ids. It takes its time; not in the event loop.

    Raises:
      ApiError: 400, what tokenizer or template refuse, or a prompt that is too long.
    """
    found = []
    for request in plan.requests:
        param = "messages" if request.messages is not None else "prompt"
        try:
            with service.engine.tokenizing:
                ids, value_ids = read_prompts(request, service.terms)
        except (ValueError, TypeError) as error:
            raise ApiError(400, str(error), param=param) from None
        _check_length(len(ids), param, service)
        found.append(
            request.override(
                messages=None, prompt=None, template={}, prompt_ids=list(ids), value_ids=list(value_ids)
            )
        )
    return found


def _fields(body: Generating, service: Service, wanted: int | None, name: str) -> dict[str, Any]:
    """What all requests of a body have in common."""
    settings, terms = service.settings, service.terms
    n = body.n or 1
    if n > settings.max_n:
        raise ApiError(400, f"n must be at most {settings.max_n}, got {n}", param="n")
    most = settings.max_new_tokens
    if wanted is None and most is not None and most < terms.max_new_tokens:
        wanted = most
    if wanted is not None:
        if most is not None and wanted > most:
            raise ApiError(400, f"{name} must be at most {most}, got {wanted}", param=name)
        if wanted >= service.max_length:
            raise ApiError(
                400,
                f"{name} must be less than {service.max_length}, the model's length, got {wanted}",
                param=name,
            )
    room = min(terms.max_new_tokens, service.max_length - 1) if wanted is None else wanted
    if (body.min_tokens or 0) > room:
        raise ApiError(
            400, f"min_tokens must be at most {name}, {room}, got {body.min_tokens}", param="min_tokens"
        )
    found: dict[str, Any] = {
        "max_new_tokens": max(wanted, 1) if wanted is not None else None,
        "n": n,
        "stop": tuple(body.stop or ()),
        "stop_ids": tuple(body.stop_token_ids or ()),
        "ignore_eos": bool(body.ignore_eos),
        "logit_bias": _bias(body.logit_bias or {}, service),
        "deadline": settings.request_seconds,
    }
    if body.top_k is not None:
        found["top_k"] = max(body.top_k, 0)
    for field, own in _NAMES.items():
        if getattr(body, field) is not None:
            found[own] = getattr(body, field)
    return found | _steering(body, service)


_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_tokens": "min_new_tokens",
}
"""Fields of the body that are numbers of a request, and what they are called there."""


def _steering(body: Generating, service: Service) -> dict[str, Any]:
    preset = service.preset(body.model)
    own = body.sia
    if own is not None:
        preset = preset.override(threshold=own.threshold, beta=own.beta, bound=own.bound, budget=own.budget)
    try:
        return request_fields(preset, service.terms)
    except SteeringError as error:
        raise ApiError(400, f"sia.{error}", param=f"sia.{error.name}") from None


def _bias(given: dict[str, float], service: Service) -> dict[int, float]:
    size = service.engine.policy.config.vocab_size
    found = {}
    for key, bias in given.items():
        if not (key.isascii() and key.isdigit() and len(key) < 11 and int(key) < size):
            raise ApiError(
                400,
                f"logit_bias: the keys must be ids of 0 .. {size - 1}, got {key[:40]!r}",
                param="logit_bias",
            )
        found[int(key)] = -math.inf if bias <= -MAX_BIAS else float(bias)
    return found


def _check_top(wanted: int, name: str, service: Service) -> None:
    most = service.max_top_logprobs
    if wanted > most:
        raise ApiError(
            400, f"{name} must be at most {most}, what this server records, got {wanted}", param=name
        )


def _check_length(tokens: int, param: str, service: Service) -> None:
    limits = [service.max_length - 1]
    if service.settings.max_prompt_tokens is not None:
        limits.append(service.settings.max_prompt_tokens)
    if tokens > min(limits):
        raise ApiError(
            400,
            f"{param} has {tokens} tokens, of at most {min(limits)}; cut it",
            param=param,
            code="context_length_exceeded",
        )


def _request(fields: dict[str, Any]) -> Request:
    try:
        return Request(**fields)
    except (ValueError, TypeError) as error:
        raise refusal(error) from None


def _seed(body: Generating) -> int:
    return secrets.randbelow(LARGEST_SEED + 1) if body.seed is None else body.seed % (LARGEST_SEED + 1)


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // 4)
