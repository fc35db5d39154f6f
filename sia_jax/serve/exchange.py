"""From a plan to its answer: the choices of a response, whole or in chunks; both routes alike."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.handle import Piece
from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request
from sia_jax.serve.echo import Echo
from sia_jax.serve.errors import ApiError, unexpected
from sia_jax.serve.events import DONE, encoded, frame
from sia_jax.serve.generation import Generation
from sia_jax.serve.logprobs import Weighed, ids_of, weighed
from sia_jax.serve.names import TokenNames
from sia_jax.serve.protocol import Generating
from sia_jax.serve.requests import Plan
from sia_jax.serve.responses import REASONS, steering_usage, trace, traced_ids, usage
from sia_jax.serve.service import Service
from sia_jax.serve.tokens import Spoken, Telling


class Form(Protocol):
    """What tells the two routes apart."""

    prefix: str
    """Of the ids of responses."""
    whole: str
    """The `object` of a whole response."""
    chunk: str
    """And of a chunk."""

    def choice(self, text: str) -> dict[str, Any]:
        """What a whole choice says."""

    def opening(self) -> dict[str, Any] | None:
        """What the first chunk of a choice says, before any text; None: there is none such."""

    def part(self, text: str) -> dict[str, Any]:
        """What a further chunk says."""

    def logprobs(self, tokens: Sequence[Weighed], names: TokenNames) -> dict[str, Any]:
        """Log-probabilities of tokens."""


@dataclass(frozen=True)
class _Part:
    """What is new of a choice."""

    index: int
    text: str
    spoken: list[Spoken]
    reason: str | None
    """Why it ended; None: it goes on."""


class Exchange:
    """One body and its answer.

    Args:
      service: of the server.
      form: the route's.
      body: what was asked.
      plan: what it comes to.
      requests: its prompts in ids.
      top: of the likeliest ids of each token; None: no log-probabilities are asked for.
      echoes: what each prompt puts in front of its choices; empty: nothing.
      generation: under way; None: nothing is generated.
    """

    def __init__(
        self,
        service: Service,
        form: Form,
        body: Generating,
        plan: Plan,
        requests: Sequence[Request],
        top: int | None,
        echoes: Sequence[Echo] = (),
        generation: Generation | None = None,
    ):
        self._service, self._form, self._body, self._plan = service, form, body, plan
        self._top, self._echoes, self._generation = top, tuple(echoes), generation
        self._prompts = [list(request.prompt_ids or ()) for request in requests]
        self._texts = top is not None or body.trace
        """Whether tokens are told one by one, with their texts."""
        self._details_wanted = self._texts or bool(body.return_token_ids)
        tokenizer = service.engine.policy.tokenizer if self._texts else None
        self._tellings = [Telling(tokenizer, len(self._echo(index).text)) for index in range(plan.choices)]
        self._replies: dict[int, Reply] = {}
        self._failed = self._left = False
        self._head = {
            "id": f"{form.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
            "sia": {"seed": plan.seed},
        }

    def leave(self) -> None:
        """End what goes on for it: the answer is whole, or nobody is there to take it."""
        if self._generation is None:
            return
        if not (self._generation.done or self._failed or self._left):
            self._service.metrics.disconnected()
        self._left = True
        self._generation.close()

    def fail(self) -> None:
        """End what goes on for it: there is no answer."""
        self._failed = True
        self.leave()

    def counts(self) -> dict[str, int]:
        """Tokens of the replies that are whole, and how many of them were steered."""
        usages = [reply.usage for reply in self._replies.values()]
        return {
            "tokens": sum(usage.completion for usage in usages),
            "steered": sum(usage.steered for usage in usages),
        }

    @property
    def generates_nothing(self) -> bool:
        """Whether it only scores."""
        return self._generation is None

    async def whole(self) -> bytes:
        """The JSON of the whole response.

        Raises:
          ApiError: 500, a number of the models was not finite; 503, the engine has ended.
        """
        found: list[dict[str, Any]] = [{}] * self._plan.choices
        async for part in self._parts(whole=True):
            found[part.index] = await self._run(lambda part=part: self._choice(part, whole=True))
        body = {**self._head, "object": self._form.whole, "choices": found, "usage": self._usage()}
        return await self._run(lambda: encoded(body | self._prompt_ids()))

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The frames of a stream, those that come together as one; what goes wrong is a frame too."""
        try:
            async for chunks, end in self._chunks():
                yield b"".join([*map(frame, chunks), *[DONE] * end])
        except Exception as error:
            self._failed = True
            if not isinstance(error, ApiError):
                logging.getLogger(__name__).exception("a stream failed")
                error = unexpected()
            yield frame(error.body()) + DONE

    async def _chunks(self) -> AsyncIterator[tuple[list[dict[str, Any]], bool]]:
        """What each part comes to, and whether it is the end: to send costs more than what is sent."""
        opened: set[int] = set()
        extra = self._prompt_ids()
        new: list[dict[str, Any]] = []
        async for part in self._parts(whole=False):
            choices: list[dict[str, Any]] = []
            if part.index not in opened:
                opened.add(part.index)
                choices += await self._run(lambda part=part: self._openings(part.index))
            if part.text or part.reason or (part.spoken and self._details_wanted):
                choices.append(await self._run(lambda part=part: self._choice(part, whole=False)))
            for choice in choices:
                new.append(self._chunk([choice]) | extra)
                extra = {}
            if new and not self._is_last(part):
                yield new, False
                new = []
        if self._body.include_usage:
            new.append(self._chunk([]) | {"usage": self._usage()})
        yield new, True

    def _is_last(self, part: _Part) -> bool:
        return part.reason is not None and len(self._replies) == self._plan.choices

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        found = {**self._head, "object": self._form.chunk, "choices": choices}
        if self._body.continuous_usage:
            found["usage"] = usage(sum(map(len, self._prompts)), sum(one.told for one in self._tellings))
        elif self._body.include_usage:
            found["usage"] = None
        return found

    async def _parts(self, *, whole: bool) -> AsyncIterator[_Part]:
        """What comes of each choice, in pieces or at once."""
        if self._generation is None:
            for index in range(self._plan.choices):
                yield _Part(index, "", [], "length")
            return
        async for place, piece in self._generation.pieces():
            if piece.reply is None and whole:
                continue
            index = place * self._plan.n + piece.choice
            reason = None
            if piece.reply is not None:
                if piece.reply.finish_reason == FinishReason.NON_FINITE:
                    self._failed = True
                    raise ApiError(500, "a number of the models was not finite", code="non_finite")
                reason = REASONS[piece.reply.finish_reason]
                self._replies[index] = piece.reply
            text = piece.reply.text if whole and piece.reply is not None else piece.text
            spoken: list[Spoken] = []
            if self._details_wanted:
                spoken = await self._run(lambda index=index, piece=piece: self._tell(index, piece))
            else:
                self._tellings[index].pass_over(piece)
            yield _Part(index, text, spoken, reason)

    def _tell(self, index: int, piece: Piece) -> list[Spoken]:
        if not self._texts:
            return self._tellings[index].push(piece)
        with self._service.engine.tokenizing:
            return self._tellings[index].push(piece)

    def _choice(self, part: _Part, *, whole: bool) -> dict[str, Any]:
        """A choice, or what is new of it, as JSON."""
        echo = self._echo(part.index) if whole else Echo()
        said = self._form.choice(echo.text + part.text) if whole else self._form.part(part.text)
        return {"index": part.index, **said, **self._details(part.spoken, echo), "finish_reason": part.reason}

    def _openings(self, index: int) -> list[dict[str, Any]]:
        """The chunks of a choice that come before its text."""
        echo, first = self._echo(index), self._form.opening()
        found = [] if first is None else [{"index": index, **first, "logprobs": None, "finish_reason": None}]
        if echo.text:
            details = self._details([], echo)
            found.append({"index": index, **self._form.part(echo.text), **details, "finish_reason": None})
        return found

    def _details(self, spoken: list[Spoken], echo: Echo) -> dict[str, Any]:
        """What is told of tokens, as far as it was asked for."""
        names = self._service.names
        found: dict[str, Any] = {"logprobs": None}
        if self._top is not None:
            tokens = [*echo.tokens, *weighed(spoken, self._top)]
            names.learn(ids_of(tokens))
            found["logprobs"] = self._form.logprobs(tokens, names) if tokens else None
        if self._body.return_token_ids:
            found["token_ids"] = [one.id for one in spoken]
        if self._body.trace:
            names.learn(traced_ids(spoken))
            found["sia"] = {"trace": trace(spoken, names)}
        return found

    async def _run(self, work: Any) -> Any:
        """What takes long where tokens are told one by one, and then waits for a tokenizer."""
        return await asyncio.to_thread(work) if self._texts else work()

    def _echo(self, index: int) -> Echo:
        return self._echoes[index // self._plan.n] if self._echoes else Echo()

    def _usage(self) -> dict[str, Any]:
        replies = [self._replies[index] for index in sorted(self._replies)]
        completion = sum(reply.usage.completion for reply in replies)
        counted = usage(sum(map(len, self._prompts)), completion, sum(reply.cached for reply in replies))
        return counted | {"sia": steering_usage(replies)}

    def _prompt_ids(self) -> dict[str, Any]:
        if not self._body.return_token_ids:
            return {}
        return {"prompt_token_ids": self._prompts[0] if len(self._prompts) == 1 else self._prompts}
