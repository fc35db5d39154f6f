"""Requests whose answers are known beforehand: by an engine in this process, made as the server's is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import sia_jax
from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request

BASE, STEERED = "tiny", "tiny-sia"
"""The server's models."""
VOCAB = 346
"""Ids that the tokenizer has."""
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
_SAME = ("temperature", "top_p", "top_k", "stop", "frequency_penalty", "n")
_TEXTS = ("egg", "the train", "water the plants", "in the evening, ", "é", "7 minutes")
_STOPS = ("e", "th", "a", " ", "s", "in")


@dataclass(frozen=True)
class Recipe:
    """A body, and what is right for it."""

    route: str
    body: dict[str, Any]
    """Without what only the shape of the answer depends on."""
    replies: tuple[Reply, ...]
    """By the index of the choice."""

    @property
    def prompts(self) -> int:
        """Prompts of the body."""
        return len(self.replies) // int(self.body.get("n", 1))

    @property
    def prompt_tokens(self) -> int:
        """As usage has them: each prompt once."""
        return sum(reply.usage.prompt for reply in self.replies) // int(self.body.get("n", 1))

    @property
    def completion_tokens(self) -> int:
        """Of all choices."""
        return sum(reply.usage.completion for reply in self.replies)


@dataclass(frozen=True)
class Scoring:
    """A prompt that is only scored."""

    ids: list[int]
    logprobs: list[float]
    """Nats of each id but the first."""


@dataclass(frozen=True)
class Book:
    """All that can be asked."""

    recipes: list[Recipe]
    scorings: list[Scoring]
    fullest: Recipe
    """What asks for all that the server has room for."""


def make_book(engine: sia_jax.Engine, count: int, seed: int, most: tuple[int, int], longest: int = 8) -> Book:
    """Random requests of both routes with their replies, and prompts with their log-probabilities.

    Args:
      engine: made as the server's is.
      count: of requests; there are a tenth as many prompts.
      seed: of the choice, and of what the requests themselves are seeded with.
      most: replies, and tokens of prompts, that the server has room for.
      longest: tokens of a reply.
    """
    rng = np.random.default_rng([seed, 1])
    bodies = [*(_random_body(rng, longest) for _ in range(count)), _fullest_body(rng, *most)]
    asked = [_requests(body) for _, body in bodies]
    replies = iter(engine.generate([request for own in asked for request in own]))
    found = []
    for (route, body), own in zip(bodies, asked, strict=True):
        of_body = [next(replies) for _ in own]
        choices = tuple(choice for reply in of_body for choice in (reply.choices or (reply,)))
        found.append(Recipe(route, body, choices))
    prompts = [_ids(rng) for _ in range(-(-count // 10))]
    scored = zip(prompts, engine.score(prompts), strict=True)
    scorings = [Scoring(ids, [float(x) for x in own.logprobs[1:]]) for ids, own in scored]
    return Book(found[:-1], scorings, found[-1])


def _fullest_body(rng: np.random.Generator, replies: int, tokens: int) -> tuple[str, dict[str, Any]]:
    """Of two prompts."""
    prompts = [[int(x) for x in rng.integers(0, VOCAB, tokens // 2)] for _ in range(2)]
    body = {"model": STEERED, "seed": 0, "max_tokens": 1, "n": replies // 2, "prompt": prompts}
    return COMPLETIONS, body


def _random_body(rng: np.random.Generator, longest: int) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {
        "model": str(rng.choice([BASE, STEERED])),
        "seed": int(rng.integers(0, 2**32)),
        "max_tokens": int(rng.integers(1, longest + 1)),
    }
    for chance, name, value in (
        (0.6, "temperature", float(rng.choice([0.0, 0.5, 1.3]))),
        (0.2, "top_p", float(rng.uniform(0.3, 1))),
        (0.2, "top_k", int(rng.integers(1, 40))),
        (0.2, "frequency_penalty", float(rng.uniform(-1, 1))),
        (0.25, "n", int(rng.integers(2, 4))),
        (0.3, "stop", [str(x) for x in rng.choice(_STOPS, int(rng.integers(1, 3)), replace=False)]),
        (0.2, "ignore_eos", True),
        (0.2, "logit_bias", {str(rng.integers(0, VOCAB)): float(rng.choice([-100, 4.5]))}),
    ):
        if rng.random() < chance:
            body[name] = value
    if body["model"] == STEERED and rng.random() < 0.6:
        body["sia"] = {"threshold": [-1.0, 0.7, 1.0, "inf", "-inf"][rng.integers(5)]}
        if rng.random() < 0.5:
            body["sia"]["beta"] = float(rng.uniform(0.2, 3))
    if rng.random() < 0.3:
        body["messages"] = [{"role": "user", "content": str(rng.choice(_TEXTS))}]
        return CHAT, body
    if rng.random() < 0.3:
        body["prompt"] = str(rng.choice(_TEXTS))
    elif rng.random() < 0.2:
        body["prompt"] = [_ids(rng), _ids(rng)]
    else:
        body["prompt"] = _ids(rng)
    return COMPLETIONS, body


def _ids(rng: np.random.Generator) -> list[int]:
    return [int(x) for x in rng.integers(0, VOCAB, int(rng.integers(1, 25)))]


def _requests(body: dict[str, Any]) -> list[Request]:
    """What an engine is asked by whoever means the same as a body."""
    fields: dict[str, Any] = {name: body[name] for name in _SAME if name in body}
    fields["max_new_tokens"] = body["max_tokens"]
    fields["ignore_eos"] = body.get("ignore_eos", False)
    fields["logit_bias"] = {
        int(id_): -math.inf if bias == -100 else bias for id_, bias in body.get("logit_bias", {}).items()
    }
    steering = body.get("sia", {})
    if body["model"] == BASE:
        fields["threshold"] = math.inf
    elif "threshold" in steering:
        fields["threshold"] = float(steering["threshold"])
    if "beta" in steering:
        fields["beta"] = steering["beta"]
    if "messages" in body:
        return [Request(messages=body["messages"], seed=body["seed"], **fields)]
    prompt = body["prompt"]
    if isinstance(prompt, str):
        return [Request(prompt=prompt, seed=body["seed"], **fields)]
    lists = prompt if isinstance(prompt[0], list) else [prompt]
    return [
        Request(prompt_ids=ids, seed=(body["seed"] + place) % 2**32, **fields)
        for place, ids in enumerate(lists)
    ]


def reasons_of(replies: Sequence[Reply]) -> list[str]:
    """As the wire has them."""
    return [reply.finish_reason.name.lower() for reply in replies]
