"""What an engine is to compile before requests come."""

import threading
from collections.abc import Sequence

from sia_jax.engine.job import Job


class WarmUp:
    """What somebody waits for the driving thread to compile.

    Args:
      jobs: requests whose programs are wanted; None: all programs.
      now: only those that they need as rows stand then.
      scoring: also those that score prompts.
    """

    def __init__(self, jobs: Sequence[Job] | None, *, now: bool, scoring: bool):
        self.jobs, self.now, self.scoring = jobs, now, scoring
        self.error: BaseException | None = None
        self.done = threading.Event()
