"""The loop that drives the device: one thread, which alone touches it.

Between two windows of a pool stands a *border*. There the last window's report is read, rows whose replies
have ended are free, requests come into free rows, and the next window begins. While it runs, the host makes
text of the report. A stop text that is found so ends its row at the next border; what the row says until then
is cut.
"""

import copy
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np

from sia_jax.decoding.state import FinishReason
from sia_jax.decoding.window import Report
from sia_jax.engine.handle import EngineClosed, Handle, Listener, Piece
from sia_jax.engine.job import Job, Terms
from sia_jax.engine.pool import Entry, Kind, Pool
from sia_jax.engine.reply import make_reply
from sia_jax.engine.request import Request
from sia_jax.engine.samples import Heard, Sample
from sia_jax.engine.scoring import Scorer, Scoring
from sia_jax.engine.statistics import Statistics
from sia_jax.engine.stream import TextStream
from sia_jax.engine.warming import WarmUp


class Driver:
    """Drives pools of rows for the requests that are handed in.

    Args:
      pools: by the length of their rows, ascending.
      scorer: reads prompts that are only scored.
      terms: what the engine was made for.
      steps: policy steps of a window.
      few: of one while somebody waits for a first token, and not many do.
      prefix_caching: whether requests go on from what rows hold.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        scorer: Scorer,
        terms: Terms,
        steps: int,
        few: int,
        *,
        prefix_caching: bool,
    ):
        self._pools = {pool.length: pool for pool in pools}
        self._scorer = scorer
        self._terms, self._steps, self._few = terms, steps, few
        self._prefix_caching = prefix_caching
        self._changed = threading.Condition()
        # Below, what `_changed` guards: any thread may write it.
        self._arrivals: list[list[Sample]] = []
        self._scorings: list[Scoring] = []
        self._warm_ups: list[WarmUp] = []
        self._cancelled: set[Handle] = set()
        self._closing = False
        self._open: set[Handle] = set()
        self._with_deadline: set[Handle] = set()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._totals = Statistics()
        self._resting = True
        """Whether the driving thread, if there is one, waits for requests."""
        self._pauses = 0
        # And what belongs to the driving thread.
        self._waiting: dict[int, deque[Sample]] = {pool.length: deque() for pool in pools}
        self._rows: dict[int, list[Sample | None]] = {pool.length: [None] * pool.rows for pool in pools}

    def submit(self, request: Request, job: Job, listener: Listener | None, *, urgent: bool) -> Handle:
        """Queue a request that was checked.

        Raises:
          EngineClosed: it was closed, or has failed.
        """
        tokenizer = self._terms.policy.tokenizer
        handle = Handle(request, self._cancel, listener)
        samples = []
        for choice in range(request.n):
            text = None if tokenizer is None else TextStream(tokenizer, job.stops, job.min_new_tokens)
            samples.append(Sample(handle, job, choice, urgent, text))
        with self._changed:
            self._start()
            self._open.add(handle)
            if request.deadline is not None:
                self._with_deadline.add(handle)
            self._arrivals.append(samples)
            self._totals.requests += 1
            self._changed.notify_all()
        return handle

    def score(self, scoring: Scoring) -> None:
        """Queue prompts that were checked.

        Raises:
          EngineClosed: it was closed, or has failed.
        """
        with self._changed:
            self._start()
            self._scorings.append(scoring)
            self._changed.notify_all()

    def warm_up(self, jobs: Sequence[Job] | None, *, now: bool = False, scoring: bool = False) -> None:
        """Compile the programs that these requests need, or all of all pools, once no request is under way.

        Args:
          jobs: the requests; None: any whatever.
          now: what they need as rows stand then, and no more.
          scoring: also what scores prompts.

        Raises:
          EngineClosed: it was closed, or has failed.
        """
        wanted = WarmUp(jobs, now=now, scoring=scoring)
        with self._changed:
            self._start()
            self._warm_ups.append(wanted)
            self._changed.notify_all()
        wanted.done.wait()
        if wanted.error is not None:
            raise EngineClosed(f"the engine ended: {wanted.error}") from wanted.error

    def is_warm(self, job: Job) -> bool:
        """Whether what reads its prompts, as rows stand, and writes one reply is compiled."""
        pool = self._pools[job.length]
        return self._kind_now(pool, job) in pool.compiled

    def close(self) -> None:
        """End at the next border, and wait for it; requests that are open fail."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            self._end(EngineClosed("it was closed"))
        elif thread is not threading.current_thread():
            thread.join()

    @property
    def failure(self) -> BaseException | None:
        """Why its thread has ended by itself; None: it has not."""
        return self._failure

    def cancel_all(self) -> None:
        """End all replies at the next border, those in the queue too."""
        with self._changed:
            self._cancelled |= self._open
            self._changed.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it nothing is sampled; entered once the device has done what it was at."""
        with self._changed:
            self._pauses += 1
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._resting or self._closing)
            jax.block_until_ready([pool.report for pool in self._pools.values()])
            yield
        finally:
            with self._changed:
                self._pauses -= 1
                self._changed.notify_all()

    def statistics(self) -> Statistics:
        """A snapshot."""
        with self._changed:
            found = copy.deepcopy(self._totals)
            samples = sum(map(len, self._arrivals))
        found.waiting = samples + sum(map(len, self._waiting.values()))
        found.in_rows = sum(sample is not None for rows in self._rows.values() for sample in rows)
        return found

    def _start(self) -> None:
        """The driving thread runs; `_changed` is held."""
        if self._failure is not None:
            raise EngineClosed(f"the engine has failed: {self._failure}") from self._failure
        if self._closing:
            raise EngineClosed("the engine was closed; make another")
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="sia_jax engine", daemon=True)
            thread.start()
            self._thread = thread
        elif not self._thread.is_alive():
            raise EngineClosed("the engine's thread is in the process that this one was forked from")

    def _cancel(self, handle: Handle) -> None:
        with self._changed:
            if handle in self._open:
                self._cancelled.add(handle)
                self._changed.notify_all()

    def _run(self) -> None:
        why: BaseException = EngineClosed("it was closed")
        try:
            while self._wait_for_work():
                # Before the windows, which are waited for at the next border: so this one holds up nobody.
                with self._timed("dispatch"):
                    self._scorer.dispatch()
                for pool in self._pools.values():
                    self._turn(pool)
                self._read_scores()
        except BaseException as error:
            why = error
        finally:
            self._end(why)

    def _end(self, error: BaseException) -> None:
        """No request is open any more; those that are, fail. What was on the device is let go."""
        with self._changed:
            if not isinstance(error, EngineClosed):
                self._failure = error
            self._closing = True
            left, self._open = list(self._open), set()
            warm_ups, self._warm_ups = self._warm_ups, []
            scorings, self._scorings = self._scorings, []
            self._arrivals.clear()
            self._cancelled.clear()
            self._with_deadline.clear()
            self._changed.notify_all()
        for length, pool in self._pools.items():
            pool.free()
            self._waiting[length].clear()
            self._rows[length] = [None] * pool.rows
        self._scorer.fail(error)
        for scoring in scorings:
            scoring.fail(error)
        for wanted in warm_ups:
            wanted.error = error
            wanted.done.set()
        for handle in left:
            handle.fail(error)

    def _wait_for_work(self) -> bool:
        """Take what has come; with nothing to do, or in a pause, wait for it. False: the engine is to end."""
        with self._changed, self._timed("idle"):
            while not (self._closing or self._has_work()):
                self._resting = True
                self._changed.notify_all()
                self._changed.wait()
            self._resting = False
            if self._closing:
                return False
            arrivals: list[list[Sample]] = []
            scorings: list[Scoring] = []
            warm_ups: list[WarmUp] = []
            if not self._pauses:
                arrivals, self._arrivals = self._arrivals, []
                scorings, self._scorings = self._scorings, []
            if not self._busy():
                warm_ups, self._warm_ups = self._warm_ups, []
        self._scorer.take(scorings)  # which fails them if compiling does
        for wanted in warm_ups:
            try:
                self._compile(wanted)
            except BaseException as error:
                wanted.error = error
                raise
            finally:
                wanted.done.set()
        for samples in arrivals:
            self._waiting[samples[0].job.length].extend(samples)
        return True

    def _compile(self, wanted: WarmUp) -> None:
        jobs = wanted.jobs
        if wanted.scoring:
            self._scorer.compile()
        for pool in self._pools.values():
            if jobs is not None and wanted.now:
                kinds = list({self._kind_now(pool, job) for job in jobs if job.length == pool.length})
            else:
                kinds = pool.kinds(jobs, extending=self._prefix_caching)
            if kinds:
                pool.compile(kinds, forks=jobs is None or any(job.request.n > 1 for job in jobs))

    def _kind_now(self, pool: Pool, job: Job) -> Kind:
        """Which program would admit a request, as rows stand."""
        free = self._free_rows(pool, self._rows[pool.length]) or [0]  # one that is in use holds nothing
        return pool.kind_of(pool.choose(job, job.keys[0], free, copied=False))

    def _has_work(self) -> bool:
        """Whether there is something to do now; `_changed` is held."""
        busy = self._busy()
        comes = bool(self._arrivals or self._scorings)
        return bool(self._warm_ups and not busy) or (not self._pauses and (comes or busy))

    def _busy(self) -> bool:
        in_rows = any(sample is not None for rows in self._rows.values() for sample in rows)
        return in_rows or any(self._waiting.values()) or self._scorer.is_busy

    def _read_scores(self) -> None:
        """Hand out what prompts scored at this border."""
        with self._timed("device"):
            found = self._scorer.read()
        if found:
            with self._changed:
                self._totals.scorings += 1
                self._totals.scored_tokens += sum(len(scored.ids) for _, _, scored in found)
        for scoring, place, scored in found:
            scoring.put(place, scored)

    def _turn(self, pool: Pool) -> None:
        """One border of a pool, and the text of the window before it."""
        rows = self._rows[pool.length]
        with self._timed("device"):
            report = pool.read()
        heard = [] if report is None else self._settle(pool, rows, report)
        heard = self._end_unwanted(pool, rows, heard)
        with self._timed("admission"):
            self._admit(pool, rows)
        if any(sample is not None for sample in rows):
            with self._timed("dispatch"):
                unwanted = pool.alive & np.array([sample is None for sample in rows])
                pool.dispatch(self._window_steps(pool, rows), unwanted)
        if heard:
            with self._timed("text"):
                self._speak(pool, heard)

    def _settle(self, pool: Pool, rows: list[Sample | None], report: Report) -> list[Heard]:
        """Free the rows that have ended; returns what is new of all."""
        heard = []
        with self._changed:
            self._totals.count_window(report, sum(sample is not None for sample in rows))
        for row, sample in enumerate(rows):
            if sample is None:
                continue
            # Copies: a view would keep the reports of all rows for as long as anybody keeps a piece.
            said = jax.tree.map(lambda x: x[row, : report.counts[row]].copy(), report.said)  # noqa: B023
            sample.counts = int(report.policy_tokens[row]), int(report.value_tokens[row])
            sample.held = int(report.policy_held[row]), int(report.value_held[row])
            if len(said.tokens):
                sample.said.append(said)
            one = Heard(sample, row, said, FinishReason(int(report.finish_reason[row])))
            heard.append(one)
            if one.reason != FinishReason.RUNNING:
                self._release(pool, rows, row)
        return heard

    def _end_unwanted(self, pool: Pool, rows: list[Sample | None], heard: list[Heard]) -> list[Heard]:
        """Free the rows of who was cancelled or is late, in the queue too; returns what is new of all."""
        with self._changed:
            self._cancelled &= self._open
            cancelled = set(self._cancelled)
            if not cancelled and not self._with_deadline:
                return heard  # the queue may be long, and the device waits
        waiting = self._waiting[pool.length]
        of_rows = {one.sample: one for one in heard}
        new = list(heard)

        def why(sample: Sample) -> FinishReason | None:
            if sample.handle in cancelled:
                return FinishReason.CANCELLED
            return FinishReason.DEADLINE if sample.late else None

        places = [(row, sample) for row, sample in enumerate(rows) if sample is not None]
        for row, sample in [*places, *((-1, sample) for sample in waiting)]:
            reason = why(sample)
            if reason is None:
                continue
            if sample in of_rows:
                of_rows[sample].reason = reason
            else:
                new.append(Heard(sample, row, pool.empty_record, reason))
            if row >= 0:
                self._release(pool, rows, row)
        if len(new) > len(heard):
            ended = {one.sample for one in new if one.row < 0}
            self._waiting[pool.length] = deque(sample for sample in waiting if sample not in ended)
        return new

    def _admit(self, pool: Pool, rows: list[Sample | None]) -> None:
        """Fill free rows from the queue, in its order; replies to one request share one reading of it."""
        waiting = self._waiting[pool.length]
        if not waiting:
            return
        pool.allocate()
        free = self._free_rows(pool, rows)
        entries: list[Entry] = []
        copies: list[tuple[int, int, np.ndarray]] = []
        first: dict[Handle, int] = {}
        while free and waiting:
            sample = waiting.popleft()
            key = sample.job.keys[sample.choice]
            entry = pool.place(sample.job, key, free, copied=sample.handle in first)
            if sample.handle in first:
                copies.append((first[sample.handle], entry.row, key))
            else:
                first[sample.handle] = entry.row
                entries.append(entry)
                sample.cached = entry.kept[0]
            rows[entry.row] = sample
            sample.admitted = time.monotonic()
        calls = pool.admit(entries)
        if copies:
            pool.fork(*zip(*copies, strict=True))
        with self._changed:
            self._totals.admissions += calls
            self._totals.reused_tokens += sum(entry.kept[0] for entry in entries)

    def _release(self, pool: Pool, rows: list[Sample | None], row: int) -> None:
        """The row is free; what it holds may serve another."""
        sample, rows[row] = rows[row], None
        if sample is not None and self._prefix_caching:
            pool.held[row] = sample.leaves()

    def _free_rows(self, pool: Pool, rows: list[Sample | None]) -> list[int]:
        """Free rows, in turn of those groups of devices that have most of them."""
        groups: dict[int, list[int]] = {}
        for row, sample in enumerate(rows):
            if sample is None:
                groups.setdefault(pool.group(row), []).append(row)
        free = []
        while any(groups.values()):
            group = max(groups, key=lambda g: len(groups[g]))
            free.append(groups[group].pop(0))
        return free

    def _window_steps(self, pool: Pool, rows: Sequence[Sample | None]) -> int:
        """Few while somebody waits for a first token, unless the queue is as long as the rows."""
        waiting = self._waiting[pool.length]  # behind such a queue for replies, which long windows end sooner
        if len(waiting) >= pool.rows:
            return self._steps
        urgent = any(s is not None and s.urgent and not s.said for s in rows)
        return self._few if urgent or any(s.urgent for s in waiting) else self._steps

    def _speak(self, pool: Pool, heard: Sequence[Heard]) -> None:
        """Make text of what was said, and hand it out."""
        rows = self._rows[pool.length]
        for one in heard:
            sample = one.sample
            count = len(one.said.tokens)
            if count and math.isnan(sample.first_token):
                sample.first_token = time.monotonic()
            text = ""
            if sample.text is not None and count:
                with self._terms.tokenizing:
                    text = sample.text.push(one.said.tokens.tolist())
            sample.shown.append(text)
            stopped = sample.text is not None and sample.text.cut is not None
            if stopped and rows[one.row] is sample:
                self._release(pool, rows, one.row)  # another's from the next border on
            if stopped or one.reason != FinishReason.RUNNING:
                self._finish(pool, one, text)
            elif count:
                self._hand_out(sample, Piece(text, sample.choice, one.said, None))

    def _finish(self, pool: Pool, one: Heard, text: str) -> None:
        """A reply is whole: its last piece, of which this text is there already."""
        sample = one.sample
        if sample.text is not None:
            broken_off = one.reason in (FinishReason.CANCELLED, FinishReason.DEADLINE)
            with self._terms.tokenizing:
                rest = sample.text.finish(broken_off=broken_off)
            text += rest
            sample.shown.append(rest)
        cut = None if sample.text is None else sample.text.cut
        reply = make_reply(
            sample.record(pool.empty_record),
            "".join(sample.shown),
            one.reason,
            sample.counts,
            (len(sample.job.policy_ids), len(sample.job.value_ids)),
            pool.config,
            cut=None if cut is None else len(cut.pieces),
            stop_string=None if cut is None else cut.stop,
            tokenizer=self._terms.policy.tokenizer,
            timing=sample.timing(),
            cached=sample.cached,
        )
        with self._changed:
            self._totals.count_reply(reply)
        self._hand_out(sample, Piece(text, sample.choice, one.said, reply))

    def _hand_out(self, sample: Sample, piece: Piece) -> None:
        sample.handle.say(piece)
        if sample.handle.done:
            with self._changed:
                self._open.discard(sample.handle)
                self._cancelled.discard(sample.handle)
                self._with_deadline.discard(sample.handle)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._totals.seconds[what] += time.perf_counter() - began
