"""One of a request's replies in the making, and what is new of it at a border."""

import math
import time
from dataclasses import dataclass, field

import jax
import numpy as np

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.handle import Handle
from sia_jax.engine.job import Job
from sia_jax.engine.pool import Held
from sia_jax.engine.reply import Timing
from sia_jax.engine.stream import TextStream
from sia_jax.steering.types import TokenRecord


@dataclass(eq=False)
class Sample:
    """One of a request's replies, in the queue or in a row."""

    handle: Handle
    job: Job
    choice: int
    urgent: bool
    """Whether somebody waits for its first token."""
    text: TextStream | None
    admitted: float = math.nan
    first_token: float = math.nan
    said: list[TokenRecord] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    counts: tuple[int, int] = (0, 0)
    held: tuple[int, int] = (0, 0)
    cached: int = 0
    """Ids of the policy's prompt that its row held already."""

    def timing(self) -> Timing:
        """Of a reply that ends now."""
        moments = (self.admitted, self.first_token, time.monotonic())
        return Timing(*(moment - self.handle.submitted for moment in moments))

    def record(self, nothing: TokenRecord) -> TokenRecord:
        """Of all that it has said: its windows' records, one after the other.

        Args:
          nothing: the record of a reply that says nothing.
        """
        whole: TokenRecord = jax.tree.map(lambda *parts: np.concatenate(parts), nothing, *self.said)
        return whole

    def leaves(self) -> Held | None:
        """What is in its row, now that it leaves it."""
        if not any(self.held):
            return None
        said = [record.tokens for record in self.said]
        policy_ids, value_ids = (
            np.concatenate([own, *said]) for own in (self.job.policy_ids, self.job.value_ids)
        )
        return Held(policy_ids, value_ids, *self.held, since=time.monotonic())

    @property
    def late(self) -> bool:
        """Whether its deadline has passed."""
        deadline = self.handle.request.deadline
        return deadline is not None and time.monotonic() - self.handle.submitted > deadline


@dataclass(eq=False)
class Heard:
    """What is new of a sample at a border."""

    sample: Sample
    row: int
    """Its row; -1: it is in the queue."""
    said: TokenRecord
    reason: FinishReason
    """How it stands."""
