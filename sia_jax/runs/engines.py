"""The engine of a run of a program: its rows as the options say, and requests from its prompts."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import jax

import sia_jax
from sia_jax.engine.reply import Reply
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.runner import steering, threshold, whole_rows
from sia_jax.steering.gates import Always, Gate, reads_threshold, shut_at_infinity
from sia_jax.steering.numbers import NUMBERS

_COLUMNS = 16
"""Rows hold a multiple of so many tokens."""
_STOP_IDS = 16
"""That a reply may end in, at least; so one more stop text makes no other program."""


@dataclass(frozen=True)
class Row:
    """A prompt, ready to run."""

    policy_ids: Sequence[int]
    value_ids: Sequence[int]
    key: jax.Array
    threshold: float


def make_engine(
    models: Models,
    args: SamplingArgs,
    rows: int,
    prompts: Sequence[Row],
    *,
    record: Literal["candidates"] | None = None,
    structure: sia_jax.SteeringConfig | None = None,
    expected_ratio: float | None = None,
    one_buffer: bool = False,
    continues: bool = False,
) -> sia_jax.Engine:
    """An engine with rows for the longest of these prompts and its reply.

    Args:
      models: loaded.
      args: structure and lengths.
      rows: replies at a time; with a mesh, `whole_rows` of them.
      prompts: all of the run's, those that are done too: a run that goes on runs the same programs.
      record: "candidates" records them.
      structure: of the steering; None: as the options say.
      expected_ratio: the share of junctions that value passes are laid out for; None: by the threshold.
      one_buffer: whether all prompts are padded to the longest: one program less or two, for few prompts.
      continues: whether prompts will come again with a beginning of their reply: rows go on from what they
        hold, mostly by one id.
    """
    longest = max(max(len(row.policy_ids), len(row.value_ids)) for row in prompts)
    length = math.ceil((longest + args.max_new_tokens) / _COLUMNS) * _COLUMNS
    held = models.policy.config.max_position_embeddings
    if models.value is not None:
        held = min(held, models.value.config.backbone.max_position_embeddings)
    if expected_ratio is None:
        dense = threshold(args) == -math.inf or isinstance(steering(args).gate, Always)
        expected_ratio = 1.0 if dense else 0.2
    return sia_jax.Engine(
        models.policy,
        models.value,
        rows=whole_rows(args, rows),
        max_length=min(length, held),
        lengths=[min(length, held)],
        prompt_lengths=[longest] if one_buffer else _short_buffers(length) if continues else None,
        prefix_caching=continues,
        steering=steering(args, models.policy) if structure is None else structure,
        expected_ratio=expected_ratio,
        record=record,
        max_stop_ids=max_stop_ids(models, args),
    )


def _short_buffers(length: int) -> list[int]:
    """Of 1 and of 16, 32, 64, ... ids."""
    sizes = [1, _COLUMNS]
    while 2 * sizes[-1] < length:
        sizes.append(2 * sizes[-1])
    return sizes


def max_stop_ids(models: Models, args: SamplingArgs) -> int:
    """Ids that a reply of the run may end in: room for all ends of text, and for stop texts that are ids."""
    return max(_STOP_IDS, len(models.policy.config.eos_token_ids) + len(args.stop))


def make_base(
    engine: sia_jax.Engine, models: Models, args: SamplingArgs, prompts: Sequence[Row], **options: Any
) -> sia_jax.Engine:
    """What generates the policy's own replies, as requests of infinite threshold, of the same random numbers.

    `engine`, if such a threshold shuts its gate; else one without the value model. The arguments are those of
    `make_engine`.
    """
    if shut_at_infinity(steering(args).gate):
        return engine
    return make_engine(Models(models.policy, None), args, engine.rows, prompts, **options)


def make_request(
    row: Row, args: SamplingArgs, *, n: int = 1, gate: Gate | None = None, **fields: Any
) -> sia_jax.Request:
    """A request for the replies to a row's prompt.

    Args:
      row: the prompt.
      args: the numbers, and where a reply ends.
      n: replies; of several, reply j draws with fold_in(row.key, j).
      gate: that of the engine with other numbers.
      **fields: of the request, over those of the options.
    """
    given: dict[str, Any] = {name: getattr(args, name) for name in NUMBERS}
    given |= {"max_new_tokens": args.max_new_tokens, "stop": args.stop}
    if args.value is None or reads_threshold(steering(args).gate if gate is None else gate):
        given["threshold"] = row.threshold
    return sia_jax.Request(
        prompt_ids=row.policy_ids,
        value_ids=row.value_ids,
        key=row.key,
        n=n,
        gate=gate,
        **given | fields,
    )


def one_reply(row: Row, branch: int, branches: int) -> Row:
    """The row whose only reply is reply `branch` of `branches` to this one: what a run that goes on asks."""
    if branches == 1:
        return row
    key = jax.random.fold_in(row.key, branch)
    return Row(row.policy_ids, row.value_ids, key, row.threshold)


@dataclass(frozen=True)
class Missing:
    """Replies that a run lacks, which one request asks for."""

    index: int
    """Of the row."""
    branches: Sequence[int]
    request: sia_jax.Request


def missing_replies(
    rows: Sequence[Row], args: SamplingArgs, branches: int, is_done: Callable[[int, int], bool]
) -> list[Missing]:
    """Requests for what a run lacks: all replies to a prompt together, or one by one where some are there.

    Args:
      rows: of all prompts.
      args: the numbers.
      branches: replies to each.
      is_done: whether the run has the reply, by the index of the row and the branch.
    """
    found = []
    for index, row in enumerate(rows):
        missing = [branch for branch in range(branches) if not is_done(index, branch)]
        if len(missing) == branches:
            found.append(Missing(index, missing, make_request(row, args, n=branches)))
            continue
        for branch in missing:
            request = make_request(one_reply(row, branch, branches), args)
            found.append(Missing(index, [branch], request))
    return found


def warm_up(
    engine: sia_jax.Engine,
    missing: Sequence[Missing],
    aside: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Compile what these need, and say so.

    Args:
      engine: nothing runs in it.
      missing: any number.
      aside: shows what is being done while it lasts, such as `RunProgress.aside`.
    """
    kinds: dict[tuple[int, bool, bool], sia_jax.Request] = {}
    for request in (each.request for each in missing):
        longest = max(len(request.prompt_ids or ()), len(request.value_ids or ()))
        kinds.setdefault((longest, request.threshold == math.inf, request.n > 1), request)
    if kinds:
        with aside(f"compiling for prompts of up to {max(kinds)[0]} tokens"):
            engine.warmup(kinds.values())


def completed(engine: sia_jax.Engine, missing: Sequence[Missing]) -> Iterator[tuple[int, int, Reply]]:
    """(index of the row, branch, reply) of all that is missing, as replies become whole.

    Args:
      engine: warm.
      missing: any number.
    """
    for place, reply in engine.as_completed(each.request for each in missing):
        for branch, own in zip(missing[place].branches, reply.choices or (reply,), strict=True):
            yield missing[place].index, branch, own


def in_order(completed: Iterable[tuple[int, Reply]]) -> Iterator[Reply]:
    """Replies in the order of their requests: one that is whole early waits for its turn.

    Args:
      completed: of `Engine.as_completed`.
    """
    whole: dict[int, Reply] = {}
    turn = 0
    for place, reply in completed:
        whole[place] = reply
        while turn in whole:
            yield whole.pop(turn)
            turn += 1
