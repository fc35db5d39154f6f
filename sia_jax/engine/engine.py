"""`Engine`: any number of requests, each with its own numbers, over rows that are never left idle.

    with sia_jax.Engine("Qwen/Qwen3-1.7B", "out/vm/best") as engine:
        print(engine.generate("How do I bake bread?", threshold=1.0).text)

See docs/engine.md for the life of a request.
"""

import math
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

from jax.sharding import Mesh

from sia_jax.arguments import check_kind, check_real, check_whole
from sia_jax.checkpoints.huggingface import load_policy
from sia_jax.checkpoints.value_model import load_value_model, own_backbone
from sia_jax.decoding.checks import check_mesh, check_params, check_threshold
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.schedule import Schedule
from sia_jax.engine.driver import Driver
from sia_jax.engine.handle import Handle, Listener, Piece, Stream
from sia_jax.engine.job import Job, Terms, blank, make_job
from sia_jax.engine.memory import check_memory
from sia_jax.engine.pool import Pool
from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request, as_request
from sia_jax.engine.scoring import Scored, Scorer, make_scoring
from sia_jax.engine.statistics import Statistics
from sia_jax.parallel.lock_step import spans_processes
from sia_jax.parallel.mesh import mesh_of
from sia_jax.pretrained import Policy, ValueModel
from sia_jax.steering.config import SteeringConfig
from sia_jax.text.chat import Message

Asked = str | Sequence[Message] | Request
"""A text that the user says, a conversation, or a request."""

LENGTHS = (256, 1024, 4096, 16384, 65536)
"""Tokens of prompt and reply for which there are rows of their own, up to an engine's max_length."""
_ADMISSION_TOKENS = {"cpu": 64}
"""Ids of prompts that are read at a time, by platform; 512 elsewhere. Padding of a call costs what prompts
cost where products and not weights take the time."""
_FEW = 4
"""Policy steps of a window while somebody waits for a first token."""


class Engine:
    """Generates replies to any number of requests, each steered by its own numbers, in B rows.

    Rows are refilled as soon as their replies end, at the borders of windows of some policy steps. What a
    request is replied does not depend on what else runs: its reply is that of `sia_jax.sample`, up to what
    two programs round differently, and between engines alike bit for bit.

    Safe to use from any thread. What is passed to the constructor shapes the compiled programs; requests
    compile nothing but, the first of a length, its program.

    Args:
      policy: a loaded one, a folder or a Hub id.
      value: likewise, or None: nothing is steered. A folder or Hub id goes over `policy`'s weights, unless
        it brings a backbone of its own.
      rows: B, replies that are written at a time; with a mesh a multiple of data times fsdp.
      max_length: tokens of the longest prompt with its reply; None: 4096, or what the models hold.
      lengths: of the kinds of rows; a request goes into the shortest that hold it, and each kind takes memory
        from its first request on. None: 256, 1024, 4096, ... up to `max_length`.
      prompt_lengths: ids of the buffers in which prompts are read, each by its own program: the fewer, the
        less is compiled and the more padded. None: 16, 32, 64, ... In any case also the length of the rows.
      max_new_tokens: of requests that do not say, as far as `max_length` has room.
      threshold: of requests that do not say; None: 1.0 nats, and inf without a value model.
      steering: structure, and the default of each number.
      expected_ratio: the share of tokens that value passes are laid out for.
      expected_contenders: under a bounded tilt, the candidates a junction that they are laid out for; see
        `SamplerConfig.auto`, which has the rule for None.
      schedule: how rows that wait at a junction are served; None: by the rule of `SamplerConfig.auto`.
      record: "candidates" records them in every reply.
      top_logprobs: K, ids that the policy finds likeliest, which are recorded at every token; also the most
        that `score` gives.
      steps: policy steps of a window, at most.
      max_stop_ids: ids that may end a reply, those of the policy's end of text among them.
      max_logit_bias: ids that a request may bias, and as many that it may ban.
      prefix_caching: whether a prompt that begins as what a free row holds, such as the next turn of a
        conversation, is read from there on. Its reply is the same up to what two programs round differently.
      mesh: of loaded models, that which they lie on; of names, where to load them to. Its devices are of
        this process.

    Raises:
      FileNotFoundError, ValueError: what loading finds, or sizes that cannot be.
      MemoryError: rows that do not fit.
    """

    def __init__(
        self,
        policy: Policy | str | Path,
        value: ValueModel | str | Path | None = None,
        *,
        rows: int = 16,
        max_length: int | None = None,
        lengths: Sequence[int] | None = None,
        prompt_lengths: Sequence[int] | None = None,
        max_new_tokens: int = 512,
        threshold: float | None = None,
        steering: SteeringConfig | None = None,
        expected_ratio: float = 0.2,
        expected_contenders: float | None = None,
        schedule: Schedule | None = None,
        record: Literal["candidates"] | None = None,
        top_logprobs: int = 0,
        steps: int = 16,
        max_stop_ids: int = 16,
        max_logit_bias: int = 16,
        prefix_caching: bool = False,
        mesh: Mesh | None = None,
    ):
        sizes = {"rows": rows, "max_new_tokens": max_new_tokens, "steps": steps}
        widths = {"max_stop_ids": max_stop_ids, "max_logit_bias": max_logit_bias}
        for name, size in (sizes | widths).items():
            check_whole(name, size)
            if size < (name in sizes):
                raise ValueError(f"{name} must be {int(name in sizes)} or more, got {size}")
        _check_alone(mesh or (mesh_of(policy.params) if isinstance(policy, Policy) else None))
        if not isinstance(policy, Policy):
            check_kind("policy", policy, (str, Path), "a loaded policy, a folder or a Hub id")
            policy = load_policy(policy, mesh=mesh)
        if value is not None and not isinstance(value, ValueModel):
            check_kind("value", value, (str, Path), "a loaded value model, a folder or a Hub id")
            over = own_backbone(value) or policy
            value = load_value_model(value, over, policy=policy, mesh=mesh)
        self.policy, self.value = policy, value
        mesh = mesh or mesh_of(policy.params)
        params = SteeringParams(policy.params, None if value is None else value.params)
        kinds = _lengths(policy, value, max_length, lengths)
        whole = SamplerConfig(
            policy=policy.config,
            value=None if value is None else value.config,
            steering=steering or SteeringConfig(),
            max_new_tokens=kinds[-1],
            record=record,
            top_logprobs=top_logprobs,
            mesh=mesh,
            schedule=schedule,
            chunk=steps,
        )
        check_params(params.policy, params.value, whole)
        check_mesh(params.policy, params.value, rows, whole)
        if threshold is None:
            threshold = math.inf if value is None else 1.0
        check_real("threshold", threshold)
        check_threshold(threshold, whole)
        self._terms = Terms(
            policy, value, whole, kinds, float(threshold), max_new_tokens, max_stop_ids, max_logit_bias
        )
        buffers = None if prompt_lengths is None else _sorted("a length of prompts", 1, prompt_lengths)
        platform = next(iter(policy.params["model"]["norm"]["weight"].devices())).platform
        nobody = blank(self._terms)
        pools = [
            Pool(
                params,
                SamplerConfig.auto(
                    rows,
                    expected_ratio,
                    expected_contenders,
                    **_fields(replace(whole, max_new_tokens=length)),
                ),
                length,
                rows,
                nobody,
                _ADMISSION_TOKENS.get(platform, 512),
                buffers,
            )
            for length in kinds
        ]
        check_memory(pools)
        self.rows, self.lengths = rows, kinds
        few = min(_FEW, steps)
        scorer = Scorer(params.policy, whole, kinds[-1], pools[-1].entries)
        self._driver = Driver(pools, scorer, self._terms, steps, few, prefix_caching=prefix_caching)
        weakref.finalize(self, self._driver.close)  # also when the interpreter ends

    def submit(self, asked: Asked, *, listener: Listener | None = None, **fields: Any) -> Handle:
        """Hand in a request; returns at once.

        Args:
          asked: a text, a conversation or a `Request`.
          listener: told every piece on the engine's thread, in place of the handle's own iteration.
          **fields: of the request.

        Raises:
          ValueError, TypeError: a request that cannot be, or that does not fit.
          EngineClosed: the engine was closed, or has failed.
        """
        request = as_request(asked, **fields)
        return self._submit(request, make_job(request, self._terms), listener, urgent=True)

    def _submit(self, request: Request, job: Job, listener: Listener | None, *, urgent: bool) -> Handle:
        handle = self._driver.submit(request, job, listener, urgent=urgent)
        handle.keep(self)
        return handle

    @overload
    def generate(self, asked: str | Request | Sequence[Mapping[str, str]], **fields: Any) -> Reply: ...

    @overload
    def generate(self, asked: Sequence[Asked], **fields: Any) -> list[Reply]: ...

    def generate(self, asked: Any, **fields: Any) -> Reply | list[Reply]:
        """The reply to a request, or the replies to a list of them, in its order.

        Args:
          asked: a text, a conversation (a list of messages) or a `Request`; or a list of these.
          **fields: of all requests: threshold, temperature, max_new_tokens, ...; see `Request`.

        Raises:
          ValueError, TypeError: a request that cannot be, or that does not fit; nothing has run then.
          EngineClosed: the engine was closed, or failed.
        """
        asked = asked if isinstance(asked, str | Request | Mapping) else list(asked)
        one = isinstance(asked, str | Request | Mapping) or (bool(asked) and isinstance(asked[0], Mapping))
        requests = [as_request(each, **fields) for each in ([asked] if one else asked)]
        jobs = [make_job(request, self._terms) for request in requests]
        handles: list[Handle] = []
        try:
            for request, job in zip(requests, jobs, strict=True):
                handles.append(self._submit(request, job, _nobody, urgent=False))
            replies = [handle.result() for handle in handles]
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise
        return replies[0] if one else replies

    def stream(self, asked: Asked, **fields: Any) -> Stream:
        """The pieces of a reply, as they come; joined, their texts are the reply's.

        Left before its end, the stream cancels the request.

        Args:
          asked: a text, a conversation or a `Request`.
          **fields: of the request.

        Raises:
          ValueError, TypeError, EngineClosed: as of `submit`.
        """
        return Stream(self.submit(asked, **fields))

    def as_completed(
        self, requests: Iterable[Asked], *, ahead: int | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """(place, reply) of any number of requests, as replies become whole; for runs of hours.

        Requests are taken from the iterable as there is room for them. Left before its end, by Ctrl-C say,
        the iteration cancels what is open.

        Args:
          requests: any number, such as a generator that reads a file.
          ahead: how many are handed in at a time; None: twice the rows.

        Raises:
          ValueError, TypeError: a request that cannot be, or that does not fit.
          EngineClosed: the engine was closed, or failed.
        """
        ahead = 2 * self.rows if ahead is None else ahead
        whole: deque[int] = deque()
        changed = threading.Condition()
        handles: dict[int, Handle] = {}
        places = enumerate(requests)

        def told(place: int) -> Listener:
            def listen(what: Piece | BaseException) -> None:
                if isinstance(what, Piece) and what.reply is None:
                    return
                with changed:
                    whole.append(place)
                    changed.notify()

            return listen

        def hand_in() -> None:
            for place, asked in places:
                request = as_request(asked)
                job = make_job(request, self._terms)
                handles[place] = self._submit(request, job, told(place), urgent=False)
                if len(handles) >= ahead:
                    return

        try:
            hand_in()
            while handles:
                with changed:
                    changed.wait_for(lambda: whole)
                    place = whole.popleft()
                if place in handles and handles[place].done:
                    yield place, handles.pop(place).result()
                    hand_in()
        finally:
            for handle in handles.values():
                handle.cancel()

    def score(self, prompts: Sequence[Sequence[int]], top: int = 0) -> list[Scored]:
        """How likely the policy finds given prompts: log softmax(m) of every id given those before it.

        They are read at borders, a call at each, which prompts of all who wait share. Nothing is steered.

        Args:
          prompts: ids of each, any number of them.
          top: K, at most the engine's `top_logprobs`.

        Returns:
          The prompts' numbers, in their order.

        Raises:
          ValueError, TypeError: a prompt or a K that cannot be; nothing has run then.
          EngineClosed: the engine was closed, or failed.
        """
        future = self.submit_score(prompts, top)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit_score(self, prompts: Sequence[Sequence[int]], top: int = 0) -> "Future[list[Scored]]":
        """Hand in prompts to be scored; returns at once. `cancel()` leaves unread what has not been read.

        Its callbacks run on the engine's thread, which they must not hold up. The engine must be held until
        then.

        Args:
          prompts: as of `score`, as all else.
          top: K.

        Raises:
          ValueError, TypeError, EngineClosed: as of `score`; what ends the engine later, the future has.
        """
        scoring = make_scoring(prompts, top, self._terms)
        self._driver.score(scoring)
        return scoring.future

    def cancel(self, handle: Handle) -> None:
        """End a request's replies at the next border; the same as `handle.cancel()`."""
        handle.cancel()

    def cancel_all(self) -> None:
        """End the replies to all requests that are open at the next border, as `cancel` does each."""
        self._driver.cancel_all()

    def warmup(
        self, requests: Iterable[Asked] | None = None, *, now: bool = False, scoring: bool = False
    ) -> None:
        """Compile every program that these requests need, so that they do not wait for it.

        It waits for requests that are under way.

        Args:
          requests: such as will come, of which lengths, n and thresholds matter; None: any whatever.
          now: with prefix caching, only what each of them needs if it is handed in next: what reads the rest
            of a prompt of which a row holds the beginning. Else also what reads any shorter rest.
          scoring: also what `score` needs for prompts of any length.

        Raises:
          ValueError, TypeError: a request that cannot be, or that does not fit.
          EngineClosed: the engine was closed, or has failed.
        """
        jobs = None if requests is None else [make_job(as_request(one), self._terms) for one in requests]
        self._driver.warm_up(jobs, now=now, scoring=scoring)

    def is_warm(self, asked: Asked, **fields: Any) -> bool:
        """Whether one reply to this request compiles nothing.

        With prefix caching that depends on what rows hold, and so on what else is handed in first.

        Args:
          asked: a text, a conversation or a `Request`.
          **fields: of the request.

        Raises:
          ValueError, TypeError: a request that cannot be, or that does not fit.
        """
        return self._driver.is_warm(make_job(as_request(asked, **fields), self._terms))

    @property
    def failure(self) -> BaseException | None:
        """What the engine has failed of; None: it has not."""
        return self._driver.failure

    @property
    def tokenizing(self) -> threading.Lock:
        """To be held by whoever uses the models' tokenizers while requests are under way."""
        return self._terms.tokenizing

    @property
    def terms(self) -> Terms:
        """What it was made for: its models, its structure and its limits."""
        return self._terms

    def paused(self) -> AbstractContextManager[None]:
        """Within it nothing is sampled, so that other work on the same devices disturbs no measured time.

        It begins at the next border; requests that are handed in meanwhile wait.
        """
        return self._driver.paused()

    def statistics(self) -> Statistics:
        """Totals so far, and how many replies are in the queue and in rows now."""
        return self._driver.statistics()

    def close(self) -> None:
        """End at the next border. Requests that are open fail with EngineClosed."""
        self._driver.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _nobody(what: Piece | BaseException) -> None:
    """A listener for those who wait for the reply alone: no pieces are kept."""


def _check_alone(mesh: Mesh | None) -> None:
    """The engine's devices are of one process.

    Its thread admits and ends requests by its own clock, which no other process would follow.
    """
    if isinstance(mesh, Mesh) and spans_processes(mesh):
        raise ValueError(
            f"an engine serves the devices of one process, got a mesh {dict(mesh.shape)} of several; start "
            "one in each process, with make_mesh(..., devices=jax.local_devices()), or call sia_jax.sample "
            "in all processes"
        )


def _lengths(
    policy: Policy, value: ValueModel | None, max_length: int | None, lengths: Sequence[int] | None
) -> tuple[int, ...]:
    """The kinds of rows, ascending; the last holds the longest request."""
    held = policy.config.max_position_embeddings
    if value is not None:
        held = min(held, value.config.backbone.max_position_embeddings)
    if lengths is not None:
        lengths = list(lengths)
        if not lengths:
            raise ValueError("lengths must name one length of rows or more, got none; None: by the rule")
    if max_length is None:
        max_length = min(4096, held) if lengths is None else max(lengths)
    check_whole("max_length", max_length)
    if not 2 <= max_length <= held:
        raise ValueError(
            f"max_length must lie in 2 .. {held}, the positions that both models have, got {max_length}"
        )
    found = _sorted("a length of rows", 2, LENGTHS if lengths is None else lengths)
    return (*(length for length in found if length < max_length), max_length)


def _sorted(name: str, least: int, lengths: Sequence[int]) -> tuple[int, ...]:
    for length in lengths:
        check_whole(name, length)
        if length < least:
            raise ValueError(f"{name} must be {least} or more, got {sorted(lengths)}")
    return tuple(sorted(set(lengths)))


def _fields(config: SamplerConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
