"""What a server counts is exact, named as vLLM names it, and bounded in what clients can make of it."""

import math
import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sia_jax.serve.metrics import Gaps, Metrics
from tests.support.tiny_app import StubEngine

VLLM = {
    "gauge": ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"),
    "counter": (
        *("prompt_tokens", "generation_tokens", "request_success", "num_preemptions"),
        *("prefix_cache_queries", "prefix_cache_hits"),
    ),
    "histogram": (
        *("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"),
        *("request_queue_time_seconds", "request_inference_time_seconds", "request_prefill_time_seconds"),
        *("request_decode_time_seconds", "request_time_per_output_token_seconds"),
        *("request_prompt_tokens", "request_generation_tokens"),
        *("request_params_n", "request_params_max_tokens"),
    ),
}
"""The names of its engine, first version, that dashboards and load tools read, as far as we have it."""


def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), "tiny")


def samples(own: Metrics) -> dict[str, float]:
    """By name; of labels only those that are not the model's name."""
    text, kind = own.exposition()
    assert kind.startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k != "model_name"}
            inside = ",".join(f"{k}={v}" for k, v in sorted(labels.items()))
            found[sample.name + (f"{{{inside}}}" if inside else "")] = sample.value
    return found


def reply(prompt: int, completion: int, steered: int = 0, **timing: float) -> Any:
    usage = dict(prompt=prompt, completion=completion, steered=steered, shifted=steered // 2)
    usage |= dict(policy_tokens=prompt + completion, value_tokens=2 * steered, values_read=3 * steered)
    times = {"admitted": 0.5, "first_token": 1.0, "ended": 3.0} | timing
    between = (times["ended"] - times["first_token"]) / (completion - 1) if completion > 1 else math.nan
    return SimpleNamespace(
        usage=SimpleNamespace(**usage, value_passes=steered),
        timing=SimpleNamespace(**times, queued=times["admitted"], between_tokens=lambda tokens: between),
    )


@pytest.mark.parametrize("kind", VLLM)
def test_the_names_of_vllm_are_there_with_their_kinds_and_the_models_label(kind: str) -> None:
    own = metrics()
    own.watch(StubEngine())  # type: ignore[arg-type]
    families = {f.name: f for f in text_string_to_metric_families(own.exposition()[0].decode())}
    for name in VLLM[kind]:
        family = families[f"vllm:{name}"]
        assert family.type == kind, name
        assert family.samples, name
        assert all(sample.labels["model_name"] == "tiny" for sample in family.samples)


def test_first_tokens_are_replies_and_inter_token_times_are_tokens_less_one() -> None:
    """Replies whose tokens come in pieces of any size, some without any."""
    own, rng = metrics(), random.Random(0)
    lengths, prompts, first_sum, gap_sum = [0, 0, 1], [3, 4, 5], 0.0, 0.0
    for _ in range(200):
        lengths.append(rng.randint(0, 40))
        prompts.append(rng.randint(1, 30))
    for prompt, length in zip(prompts, lengths, strict=True):
        left, first = length, True
        while left:
            tokens, seconds = rng.randint(0, min(left, 8)), rng.uniform(0.01, 2.0)
            own.piece(seconds, tokens, first)
            if tokens and first:
                first_sum += seconds
            elif tokens:
                gap_sum += seconds
            first, left = first and not tokens, left - tokens
        own.finished(reply(prompt, length, length // 3), rng.choice(["stop", "length", "abort"]))
    found = samples(own)
    spoken = [length for length in lengths if length]
    assert found["vllm:time_to_first_token_seconds_count"] == len(spoken)
    assert found["vllm:time_to_first_token_seconds_sum"] == pytest.approx(first_sum)
    assert found["vllm:inter_token_latency_seconds_count"] == sum(length - 1 for length in spoken)
    assert found["vllm:inter_token_latency_seconds_sum"] == pytest.approx(gap_sum)
    assert found["vllm:prompt_tokens_total"] == sum(prompts)
    assert found["vllm:generation_tokens_total"] == sum(lengths)
    assert found["vllm:request_generation_tokens_sum"] == sum(lengths)
    assert found["vllm:request_generation_tokens_count"] == len(lengths)
    assert found["vllm:e2e_request_latency_seconds_count"] == len(lengths)
    ended = [found[f"vllm:request_success_total{{finished_reason={reason}}}"] for reason in REASONS]
    assert (sum(ended), ended[-1]) == (len(lengths), 0)
    steered = sum(length // 3 for length in lengths)
    assert found["sia:steered_tokens_total"] == found["sia:value_passes_total"] == steered
    assert found["sia:values_read_total"] == 3 * steered
    assert found["sia:value_tokens_total"] == 2 * steered
    assert found["sia:shifted_tokens_total"] == sum(length // 3 // 2 for length in lengths)
    assert found["sia:request_steered_ratio_count"] == len(lengths)


def test_equal_gaps_that_are_counted_at_once_are_as_if_each_were_observed() -> None:
    bounds, rng = (0.01, 0.1, 1.0), random.Random(0)
    registries = CollectorRegistry(), CollectorRegistry()
    gaps = Gaps("gap_seconds", "Between.", "tiny", bounds)
    registries[0].register(gaps)
    labels = {"model_name": "tiny"}
    each = Histogram("gap_seconds", "Between.", labels, buckets=bounds, registry=registries[1])
    for _ in range(60):
        value, count = rng.choice([0.0, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0]), rng.randint(0, 9)
        gaps.observe(value, count)
        for _ in range(count):
            each.labels(**labels).observe(value)
    one, other = (
        [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
        for registry in registries
    )
    assert [line for line in one if "_sum" not in line] == [line for line in other if "_sum" not in line]
    sums = [float(line.split()[-1]) for lines in (one, other) for line in lines if "_sum" in line]
    assert sums[0] == pytest.approx(sums[1])


REASONS = ("stop", "length", "abort", "error")


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_is_counted_by_its_own_name_and_all_stand_at_zero_before(reason: str) -> None:
    own = metrics()
    before = samples(own)
    own.finished(reply(1, 1), reason)
    found = samples(own)
    for other in REASONS:
        name = f"vllm:request_success_total{{finished_reason={other}}}"
        assert before[name] == 0
        assert found[name] == (other == reason)


def test_a_reply_that_never_was_counts_as_an_error_and_as_nothing_else() -> None:
    own = metrics()
    own.finished(None, "error")
    found = samples(own)
    assert found.pop("vllm:request_success_total{finished_reason=error}") == 1
    assert not any(x for name, x in found.items() if "created" not in name)


def test_the_times_of_a_reply_are_parts_of_the_whole() -> None:
    own = metrics()
    own.finished(reply(5, 11, admitted=0.5, first_token=1.25, ended=3.75), "stop")
    found = samples(own)
    times = {
        name: found[f"vllm:{name}_seconds_sum"]
        for name in (
            *("request_queue_time", "request_prefill_time", "request_decode_time", "request_inference_time"),
            *("e2e_request_latency", "request_time_per_output_token"),
        )
    }
    assert list(times.values()) == [0.5, 0.75, 2.5, 3.25, 3.75, 0.25]


@pytest.mark.parametrize(
    ("times", "missing"),
    [
        ({"admitted": math.nan, "first_token": math.nan}, ("queue", "prefill", "decode", "inference")),
        ({"first_token": math.nan}, ("prefill", "decode")),
    ],
)
def test_times_that_there_were_not_are_not_observed(
    times: Mapping[str, float], missing: tuple[str, ...]
) -> None:
    own = metrics()
    own.finished(reply(5, 0, **times), "abort")
    found = samples(own)
    for name in ("queue", "prefill", "decode", "inference"):
        assert found[f"vllm:request_{name}_time_seconds_count"] == (name not in missing)
    assert found["vllm:e2e_request_latency_seconds_count"] == 1
    assert not any(math.isnan(x) for x in found.values())


def test_what_a_request_asks_for_is_counted_as_far_as_it_says() -> None:
    own = metrics()
    own.arrived(1, None)
    own.arrived(4, 100)
    found = samples(own)
    assert (found["vllm:request_params_n_count"], found["vllm:request_params_n_sum"]) == (2, 5)
    assert found["vllm:request_params_max_tokens_count"] == 1
    assert found["vllm:request_params_max_tokens_sum"] == 100


def test_refusals_and_disconnects_are_counted() -> None:
    own = metrics()
    for status in (503, 503, 400):
        own.refused(status)
    own.disconnected()
    found = samples(own)
    assert found["sia:refused_requests_total{status=503}"] == 2
    assert found["sia:refused_requests_total{status=400}"] == 1
    assert found["sia:disconnects_total"] == 1


def test_gauges_are_what_the_engine_says_at_each_scrape() -> None:
    own, engine = metrics(), StubEngine()
    own.watch(engine)  # type: ignore[arg-type]
    for in_rows, waiting, usage in ((0, 0, 0.0), (3, 7, 0.75), (9, 0, 1.0), (0, 0, 0.0)):
        engine.now.in_rows, engine.now.waiting = in_rows, waiting
        found = samples(own)
        assert found["vllm:num_requests_running"] == in_rows
        assert found["vllm:num_requests_waiting"] == waiting
        assert found["vllm:kv_cache_usage_perc"] == usage
    engine.now.reused_tokens, engine.now.prompt_tokens, engine.now.seconds["device"] = 5, 20, 1.5
    found = samples(own)
    assert found["vllm:prefix_cache_hits_total"] == 5
    assert found["vllm:prefix_cache_queries_total"] == 20
    assert found["sia:engine_seconds_total{what=device}"] == 1.5
    assert found["sia:rows"] == 4


def test_requests_are_counted_by_route_and_what_clients_invent_is_one_label() -> None:
    own = metrics()
    own.answered("POST", "/v1/completions", 200, 0.1)
    for k in range(50):
        own.answered(f"X{k}", None, 404, 0.1)
    found = samples(own)
    assert found["http_requests_total{handler=/v1/completions,method=POST,status=200}"] == 1
    assert found["http_requests_total{handler=other,method=other,status=404}"] == 50
    assert found["http_request_duration_seconds_count{handler=other,method=other}"] == 50


def test_two_servers_of_a_process_count_apart_and_nothing_is_registered_for_all() -> None:
    before = {family.name for family in REGISTRY.collect()}
    one, other = metrics(), metrics()
    one.arrived(1, None)
    assert samples(one)["vllm:request_params_n_count"] == 1
    assert samples(other)["vllm:request_params_n_count"] == 0
    assert {family.name for family in REGISTRY.collect()} == before
