"""Who replies in a conversation: engines of one row, made as they are needed, and the requests for them.

The row keeps what was said, and of a turn only what is new is read.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import sia_jax
from sia_jax.data.prompts import PromptLine
from sia_jax.engine.engine import LENGTHS
from sia_jax.engine.handle import EngineClosed, Handle
from sia_jax.runs import prompting, runner
from sia_jax.runs.engines import Row, make_request, max_stop_ids
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.steering.gates import shut_at_infinity

_LONGEST = 4096
"""Tokens of the longest conversation of short replies."""
_STEPS = 4
"""Of the policy between two pieces of a reply."""
_SHORTEST_ROW = 1024
"""Tokens. In a shorter one a token costs little less, and a conversation that outgrows its row is read anew,
by programs that are compiled for the longer one."""
_TURN = 64
"""Ids of the smallest buffer of what is new. Each next one holds four times as many: to compile more of them
would take longer than the padding of dozens of turns."""


def longest_conversation(args: SamplingArgs, max_length: int | None, held: int) -> int:
    """Tokens that a conversation and its last reply may have.

    Args:
      args: how long a reply may be.
      max_length: as was asked for; None: 4096, and room for a conversation before a longer reply.
      held: positions of the models.

    Raises:
      ValueError: no room for a prompt, or more than the models hold.
    """
    if max_length is None:
        return min(held, max(_LONGEST, 2 * args.max_new_tokens))
    if not args.max_new_tokens < max_length <= held:
        raise ValueError(
            f"--max-length must lie in {args.max_new_tokens + 1} .. {held}, above --max-new-tokens and "
            f"within the models' positions, got {max_length}"
        )
    return max_length


class Partner:
    """Replies to conversations, one at a time, steered or by the policy alone.

    Args:
      models: loaded, the policy with a tokenizer.
      args: structure of the steering, and lengths.
      max_length: see `longest_conversation`.

    Raises:
      ValueError: lengths that the models do not hold.
      MemoryError: conversations of such lengths do not fit.
    """

    def __init__(self, models: Models, args: SamplingArgs, max_length: int | None = None):
        configs = [models.policy.config] + ([] if models.value is None else [models.value.config.backbone])
        held = min(config.max_position_embeddings for config in configs)
        self.prompting = prompting.find_prompting(models.policy, args)
        """How prompts are made, and why."""
        self._models, self._args = models, args
        self._longest = longest_conversation(args, max_length, held)
        self._engines: dict[bool, sia_jax.Engine] = {}
        """By whether the value model is left out of them."""
        self._last: Handle | None = None
        self.engine()

    def engine(self, alone: bool = False) -> sia_jax.Engine:
        """What replies; `alone`: what the policy alone would say, by the same random numbers."""
        apart = alone and not shut_at_infinity(runner.steering(self._args).gate)
        if apart not in self._engines:
            policy = self._models.policy
            self._engines[apart] = sia_jax.Engine(
                policy,
                None if apart else self._models.value,
                rows=runner.whole_rows(self._args, 1),
                max_length=self._longest,
                lengths=[length for length in LENGTHS if length >= _SHORTEST_ROW],
                prompt_lengths=[_TURN, *LENGTHS],
                steering=runner.steering(self._args, policy),
                record="candidates",
                steps=_STEPS,
                max_stop_ids=max_stop_ids(self._models, self._args),
                prefix_caching=True,
            )
        return self._engines[apart]

    def request(
        self, turns: Sequence[Mapping[str, str]], args: SamplingArgs, *, alone: bool = False
    ) -> sia_jax.Request:
        """A request for the reply to a conversation. The same turn draws the same random numbers.

        Args:
          turns: the last one the user's.
          args: the numbers.
          alone: for the engine of the policy alone.

        Raises:
          ValueError: what `prompting.policy_ids` finds, or a conversation that is too long.
        """
        prompt = PromptLine(0, "the conversation", tuple(turns))
        ids = prompting.policy_ids(self._models.policy, prompt, args, self.prompting)
        value_ids = prompting.value_ids(self._models, prompt, ids, args)
        tokens, room = max(len(ids), len(value_ids)), self._longest - args.max_new_tokens
        if tokens > room:
            raise ValueError(
                f"the conversation has {tokens} tokens, and --max-length {self._longest} less "
                f"--max-new-tokens {args.max_new_tokens} leaves room for {room}"
            )
        turn = sum(message["role"] == "assistant" for message in turns)
        threshold = math.inf if alone else runner.threshold(args)
        return make_request(Row(ids, value_ids, runner.prompt_key(args.seed, turn), threshold), args)

    @contextlib.contextmanager
    def asked(
        self,
        request: sia_jax.Request,
        compiling: Callable[[], AbstractContextManager[None]],
        *,
        alone: bool = False,
    ) -> Iterator[Handle]:
        """Hand in a request; left before its reply is whole, the request is cancelled.

        Args:
          request: from `request`.
          compiling: entered while programs are compiled, those alone that this request needs.
          alone: whether it is for the policy alone.

        Raises:
          Exception: what an engine failed of, such as a full memory; the next request has another.
        """
        if self._last is not None:  # one that was dropped is written until the next border
            with contextlib.suppress(EngineClosed):  # its engine failed; whoever asks that one next is told
                self._last.result()
            self._last = None
        engine = self.engine(alone)
        try:
            if not engine.is_warm(request):
                with compiling():
                    engine.warmup([request], now=True)
            self._last = handle = engine.submit(request)
            try:
                yield handle
            finally:
                handle.cancel()
        except EngineClosed as error:
            engine.close()
            self._last = None
            self._engines = {apart: other for apart, other in self._engines.items() if other is not engine}
            raise (error.__cause__ or error) from None

    def close(self) -> None:
        """End its engines."""
        for engine in self._engines.values():
            engine.close()
