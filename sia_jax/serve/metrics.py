"""What a server counts, for Prometheus: by vLLM's names where it is the same thing, by names of its own else.

Replies are counted, n of a request, as vLLM does. docs/serving.md lists the names.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

from sia_jax.extras import installed_with

with installed_with("serve"):
    from prometheus_client import CollectorRegistry, Counter, Histogram
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from sia_jax.engine.reply import Reply
    from sia_jax.engine.statistics import Statistics

REASONS = ("stop", "length", "abort", "error")
"""Why replies end."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG_SECONDS = (*_SECONDS, 120.0, 300.0, 600.0)
_TOKENS = tuple(float(2**k) for k in range(0, 18))
_REPLIES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""What stands for methods and paths that no route has, whose number clients could make large."""

_HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": (_SECONDS, "From handing in a request to a reply's first token."),
    "vllm:request_time_per_output_token_seconds": (_SECONDS, "The same, on average over a reply."),
    "vllm:e2e_request_latency_seconds": (_LONG_SECONDS, "From handing in a request to a whole reply."),
    "vllm:request_queue_time_seconds": (_LONG_SECONDS, "Until a reply has a row."),
    "vllm:request_inference_time_seconds": (_LONG_SECONDS, "From having a row to a whole reply."),
    "vllm:request_prefill_time_seconds": (_LONG_SECONDS, "From having a row to the first token."),
    "vllm:request_decode_time_seconds": (_LONG_SECONDS, "From the first token to a whole reply."),
    "vllm:request_prompt_tokens": (_TOKENS, "Tokens of a prompt."),
    "vllm:request_generation_tokens": (_TOKENS, "Tokens of a reply."),
    "vllm:request_params_n": (_REPLIES, "n of a request."),
    "vllm:request_params_max_tokens": (_TOKENS, "max_tokens of a request that has it."),
    "sia:request_steered_ratio": (
        tuple(k / 20 for k in range(21)),
        "The share of a reply's tokens that were steered.",
    ),
}
_COUNTERS = {
    "vllm:prompt_tokens": "Tokens of prompts.",
    "vllm:generation_tokens": "Tokens of replies.",
    "sia:steered_tokens": "Tokens of replies at junctions.",
    "sia:shifted_tokens": "Tokens that the policy alone would not have said.",
    "sia:values_read": "Candidates whose values decided.",
    "sia:value_passes": "Tokens that values decided.",
    "sia:policy_tokens": "Tokens that the policy read.",
    "sia:value_tokens": "Tokens that the value model read.",
    "sia:disconnects": "Clients that left before their answer was whole.",
}


class Counted(Protocol):
    """An engine whose statistics are read when somebody asks for the metrics."""

    rows: int

    def statistics(self) -> "Statistics":
        """A snapshot."""


class Metrics:
    """Counts of one server, in a registry of its own. Safe from any thread.

    Args:
      registry: where they are.
      model_name: the label of all of them.
    """

    def __init__(self, registry: CollectorRegistry, model_name: str):
        self.registry, self.model_name = registry, model_name
        labels = {"model_name": model_name}
        self._histograms = {
            name: Histogram(name, text, labels, buckets=buckets, registry=registry).labels(**labels)
            for name, (buckets, text) in _HISTOGRAMS.items()
        }
        self._gaps = Gaps(
            "vllm:inter_token_latency_seconds", "Between two tokens of a reply.", model_name, _SECONDS
        )
        registry.register(self._gaps)
        self._counters = {
            name: Counter(name, text, labels, registry=registry).labels(**labels)
            for name, text in _COUNTERS.items()
        }
        success = Counter(
            "vllm:request_success", "Replies that ended.", (*labels, "finished_reason"), registry=registry
        )
        self._ended = {reason: success.labels(**labels, finished_reason=reason) for reason in REASONS}
        self._refused = Counter(
            "sia:refused_requests", "Requests that were not taken.", (*labels, "status"), registry=registry
        )
        self._http = Counter(
            "http_requests", "Requests, by route.", ("handler", "method", "status"), registry=registry
        )
        self._http_seconds = Histogram(
            "http_request_duration_seconds",
            "From a request to the end of its answer.",
            ("handler", "method"),
            buckets=_LONG_SECONDS,
            registry=registry,
        )

    def watch(self, engine: Counted) -> None:
        """Gauges of an engine, read from its statistics at each scrape."""
        self.registry.register(_OfEngine(engine, self.model_name))

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus's text form, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def arrived(self, params_n: int, max_tokens: int | None) -> None:
        """A request was taken.

        Args:
          params_n: replies to each of its prompts.
          max_tokens: as it says; None: it does not.
        """
        self._observe("vllm:request_params_n", params_n)
        if max_tokens is not None:
            self._observe("vllm:request_params_max_tokens", max_tokens)

    def piece(self, timing_s: float, tokens: int, first: bool) -> None:
        """Tokens of a reply came together.

        The first token of a reply is one observation of the time to the first token. Every other one is one
        of the time between tokens: of k that came together, each gap / k; beside the first one, 0.

        Args:
          timing_s: of the first ones since the request was handed in, of others since the last ones came.
          tokens: how many; 0 counts nothing.
          first: whether the reply had none before.
        """
        if tokens < 1:
            return
        if first:
            self._observe("vllm:time_to_first_token_seconds", timing_s)
        self._gaps.observe(0.0 if first else timing_s / tokens, tokens - first)

    def finished(self, reply: "Reply | None", reason: str) -> None:
        """A reply ended.

        Args:
          reply: one of n, each for itself; None: it failed before there was any.
          reason: one of `REASONS`.
        """
        self._ended[reason].inc()
        if reply is None:
            return
        usage, timing = reply.usage, reply.timing
        counts = {
            "vllm:prompt_tokens": usage.prompt,
            "vllm:generation_tokens": usage.completion,
            "sia:steered_tokens": usage.steered,
            "sia:shifted_tokens": usage.shifted,
            "sia:values_read": usage.values_read,
            "sia:value_passes": usage.value_passes,
            "sia:policy_tokens": usage.policy_tokens,
            "sia:value_tokens": usage.value_tokens,
        }
        for name, count in counts.items():
            self._counters[name].inc(count)
        self._observe("vllm:request_prompt_tokens", usage.prompt)
        self._observe("vllm:request_generation_tokens", usage.completion)
        self._observe(
            "sia:request_steered_ratio", usage.steered / usage.completion if usage.completion else 0
        )
        if timing is None:
            return
        self._observe("vllm:e2e_request_latency_seconds", timing.ended)
        self._observe("vllm:request_queue_time_seconds", timing.queued)
        self._observe("vllm:request_inference_time_seconds", timing.ended - timing.admitted)
        self._observe("vllm:request_prefill_time_seconds", timing.first_token - timing.admitted)
        self._observe("vllm:request_decode_time_seconds", timing.ended - timing.first_token)
        self._observe("vllm:request_time_per_output_token_seconds", timing.between_tokens(usage.completion))

    def refused(self, status: int) -> None:
        """A request was not taken."""
        self._refused.labels(model_name=self.model_name, status=str(status)).inc()

    def disconnected(self) -> None:
        """A client left before its answer was whole."""
        self._counters["sia:disconnects"].inc()

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request of HTTP was answered.

        Args:
          method: of HTTP, foreign.
          route: the template of its route, never its path; None: no route took it.
          status: of HTTP; 499: the client left first.
          seconds: until the answer ended.
        """
        handler, method = route or OTHER, method if method in _METHODS else OTHER
        self._http.labels(handler=handler, method=method, status=str(status)).inc()
        self._http_seconds.labels(handler=handler, method=method).observe(seconds)

    def _observe(self, name: str, value: float) -> None:
        if not math.isnan(value):  # a time that there was not: of a reply that never had a row, or a token
            self._histograms[name].observe(value)


_GAUGES: dict[str, tuple[str, Callable[["Statistics", int], float]]] = {
    "vllm:num_requests_running": ("Replies that are being written.", lambda now, rows: now.in_rows),
    "vllm:num_requests_waiting": ("Replies in the queue.", lambda now, rows: now.waiting),
    "vllm:kv_cache_usage_perc": (
        "Rows with a reply, of all rows of one length; 1: all. A row holds the whole cache of its reply.",
        lambda now, rows: min(now.in_rows / rows, 1.0),
    ),
    "sia:rows": (
        "Replies that are written at a time, at most, of one length of rows.",
        lambda now, rows: rows,
    ),
}
_TOTALS: dict[str, tuple[str, Callable[["Statistics"], float]]] = {
    "vllm:num_preemptions": ("Replies that lost their row before their end: none ever does.", lambda now: 0),
    "vllm:prefix_cache_queries": ("Tokens of prompts, of replies that ended.", lambda now: now.prompt_tokens),
    "vllm:prefix_cache_hits": (
        "Tokens of prompts that rows held already, and that were not read again.",
        lambda now: now.reused_tokens,
    ),
    "sia:windows": ("Programs of some policy steps that were run.", lambda now: now.windows),
    "sia:policy_steps": ("Steps of the policy, each for all rows.", lambda now: now.policy_steps),
    "sia:value_calls": ("Passes of the value model, each of several rows.", lambda now: now.value_calls),
    "sia:admissions": ("Calls in which prompts were read.", lambda now: now.admissions),
}


class Gaps:
    """A histogram in which many equal numbers are counted at once, for they come with every piece of a reply.

    Args:
      name: of the metric.
      text: what it is.
      model_name: its label.
      buckets: upper bounds, which belong to them; a last one has all.
    """

    def __init__(self, name: str, text: str, model_name: str, buckets: Sequence[float]):
        self._name, self._text, self._model_name, self._buckets = name, text, model_name, tuple(buckets)
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float, count: int) -> None:
        """Count a number so many times."""
        with self._lock:
            self._counts[bisect_left(self._buckets, value)] += count
            self._sum += value * count

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        family = HistogramMetricFamily(self._name, self._text, labels=["model_name"])
        bounds = [floatToGoString(bound) for bound in (*self._buckets, math.inf)]
        family.add_metric([self._model_name], list(zip(bounds, accumulate(counts), strict=True)), total)
        yield family

    def describe(self) -> list[Any]:
        """Its name is known."""
        return list(self.collect())


class _OfEngine:
    """A collector of prometheus_client, which asks the engine when it is asked."""

    def __init__(self, engine: Counted, model_name: str):
        self._engine, self._model_name = engine, model_name

    def collect(self) -> Iterator[Metric]:
        now, rows, labels = self._engine.statistics(), self._engine.rows, ["model_name"]
        own: list[str] = [self._model_name]
        for name, (text, of_now) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=labels)
            gauge.add_metric(own, of_now(now, rows))
            yield gauge
        for name, (text, total) in _TOTALS.items():
            counter = CounterMetricFamily(name, text, labels=labels)
            counter.add_metric(own, total(now))
            yield counter
        seconds = CounterMetricFamily(
            "sia:engine_seconds", "What the engine's thread spent its time with.", labels=[*labels, "what"]
        )
        for what, spent in now.seconds.items():
            seconds.add_metric([*own, what], spent)
        yield seconds

    def describe(self) -> list[Any]:
        """Nothing is known before a scrape: the registry is not to ask when this is registered."""
        return []
