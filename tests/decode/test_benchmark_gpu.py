"""decode.benchmark_gpu at a tiny shape: rows, targets, what is left out."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from decode import benchmark, benchmark_gpu
from decode.benchmark_gpu import Args, main
from sia_jax.benchmarks import gpu
from sia_jax.benchmarks.gpu import Clock
from sia_jax.benchmarks.systems import BareLoop, SamplerSystem, Timing
from sia_jax.costs.roofline import DeviceRates
from sia_jax.costs.shapes import REAL_SHAPES, AdaptedModels, Models
from sia_jax.decoding.checks import check_params
from sia_jax.models.config import ModelConfig


@pytest.fixture
def fake_rates(monkeypatch):
    monkeypatch.setattr(benchmark_gpu, "measure_device", lambda *_: DeviceRates(1e6, 1e12))
    monkeypatch.setattr(gpu, "time_parts", lambda *_: [])


def record_of(folder):
    (path,) = folder.glob("*-gpu.json")
    return json.loads(path.read_text())


def test_a_run_is_recorded_and_drawn(tmp_path, monkeypatch, fake_rates):
    monkeypatch.setattr(gpu, "jobs", lambda models, _: [("bare greedy loop", BareLoop(models), 2)])
    out = tmp_path / "benchmarks"
    main(Args(shape="tiny", batches=(2,), prompt_tokens=4, new_tokens=4, tries=1, commit="abc", out=out))
    record = record_of(out)
    (row,) = record["rows"]
    assert (record["commit"], record["dtype"], record["kernels"]) == ("abc", "float32", {})
    assert 0 < row["of_floor"] == pytest.approx(row["policy_floor_ms"] / row["ms_per_token_of_each_row"])
    assert 'Decoding on a GPU, shape "tiny"' in out.with_suffix(".md").read_text()


def test_the_first_call_is_apart_and_ratios_are_to_the_unsteered_at_a_batch(
    tmp_path, monkeypatch, fake_rates
):
    def system(seconds):
        taken = iter([100.0, seconds, 3 * seconds, seconds])
        return lambda prompts, new_tokens: Timing(next(taken), len(prompts) * new_tokens)

    jobs = [
        ("unsteered, full record", system(1.0), 16),
        ("unsteered, full record", system(0.5), 1),
        ("dense", system(4.0), 16),
    ]
    monkeypatch.setattr(gpu, "jobs", lambda *_: jobs)
    monkeypatch.setattr(gpu, "kernels_of", lambda *_: {})
    tiny = AdaptedModels.random(REAL_SHAPES["tiny"], jnp.bfloat16)
    monkeypatch.setattr(gpu, "models_of", lambda *_: tiny)
    out = tmp_path / "benchmarks"
    main(Args(batches=(16, 1), new_tokens=4, out=out))
    record = record_of(out)
    assert [row["tokens_per_second"] for row in record["rows"]] == [64.0, 8.0, 16.0]
    assert [row["first_call_seconds"] for row in record["rows"]] == [100.0] * 3
    assert [row["of_unsteered"] for row in record["rows"]] == [1.0, 1.0, 0.25]
    assert [(row["value"] is None, row["met"]) for row in record["targets"]] == [
        (False, True),
        (False, True),
        (True, False),
    ]


def test_what_the_time_left_does_not_hold_is_left_out_and_named(tmp_path, fake_rates):
    out = tmp_path / "benchmarks"
    main(Args(shape="tiny", batches=(2, 1), minutes=0.1, out=out))
    record = record_of(out)
    assert record["rows"] == []
    assert [(row["system"], row["batch"]) for row in record["left_out"][:2]] == [
        ("unsteered, full record", 2),
        ("unsteered, full record", 1),
    ]
    assert len(record["left_out"]) == 2 * 15
    assert {row["system"] for row in record["left_out"]} >= {
        "unsteered, full record, JAX's attention",
        "20% steered, JAX's attention",
        "unsteered, full record, known number of steps",
    }


def test_a_row_that_fails_on_the_device_is_recorded_and_the_others_go_on(
    tmp_path, monkeypatch, fake_rates, capsys
):
    def failing(prompts, new_tokens):
        raise jax.errors.JaxRuntimeError("INTERNAL: no engine for it")

    jobs = [("20% steered", failing, 2), ("bare greedy loop", lambda *_: Timing(1.0, 8), 2)]
    monkeypatch.setattr(gpu, "jobs", lambda *_: jobs)
    out = tmp_path / "benchmarks"
    main(Args(shape="tiny", batches=(2,), new_tokens=4, tries=1, out=out))
    record = record_of(out)
    assert [row["system"] for row in record["rows"]] == ["bare greedy loop"]
    assert record["failed"] == [{"system": "20% steered", "batch": 2, "error": "INTERNAL: no engine for it"}]
    assert "20% steered failed: INTERNAL" in capsys.readouterr().out
    assert "Failed, as the record says: 20% steered at batch 2." in out.with_suffix(".md").read_text()


def test_cudnn_is_timed_on_a_gpu_and_in_bfloat16_alone(monkeypatch):
    load = gpu.Load((2,), 4, 4, 1)

    def kernels(dtype):
        models = AdaptedModels.random(REAL_SHAPES["tiny"], dtype)
        systems = {name: system for name, system, _ in gpu.jobs(models, load)}
        return [
            (name, dict(system.fields)["attention"])
            for name, system in systems.items()
            if isinstance(system, SamplerSystem) and "attention" in dict(system.fields)
        ]

    stand_in = [(f"{name}, JAX's attention", "xla") for name in ("unsteered, full record", "20% steered")]
    assert kernels(jnp.bfloat16) == stand_in
    monkeypatch.setattr(gpu.jax, "default_backend", lambda: "gpu")
    assert kernels(jnp.float32) == stand_in
    assert kernels(jnp.bfloat16) == [
        (f"{name}, cuDNN attention", "cudnn") for name in ("unsteered, full record", "20% steered")
    ]


def test_a_suite_goes_through_its_shapes_and_leaves_out_what_there_is_no_time_for(
    tmp_path, monkeypatch, fake_rates, capsys
):
    def jobs(models, args):
        return [("bare greedy loop", BareLoop(models), batch) for batch in args.batches]

    monkeypatch.setattr(gpu, "jobs", jobs)
    out = tmp_path / "benchmarks"
    benchmark.main(benchmark.Args(suite="accelerator", shape="tiny", tries=1, minutes=60, out=out))
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*-gpu.json"))]
    assert [[row["batch"] for row in record["rows"]] for record in records] == [[2], [1, 4], [2]]
    assert [record["shape"] for record in records] == ["tiny", "tiny", "tiny+tiny"]
    capsys.readouterr()
    benchmark.main(benchmark.Args(suite="accelerator", shape="tiny", minutes=0.1, out=tmp_path / "none"))
    assert "no time is left for tiny+tiny at batch 2" in capsys.readouterr().out
    assert not list((tmp_path / "none").glob("*.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "accelerator", "new_tokens": 8}, "--new-tokens"),
        ({"suite": "accelerator", "shape": "smollm2-135m"}, "has shapes of its own"),
        ({"minutes": 3.0}, "--minutes"),
        ({"shape": "smollm2-135m"}, "take --parts speed"),
    ],
)
def test_options_that_a_suite_does_not_use_are_refused(options, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        benchmark.main(benchmark.Args(out=tmp_path / "out", **options))


def test_models_of_two_sizes_make_one_sampler():
    models = Models.random(REAL_SHAPES["tiny"], replace(REAL_SHAPES["tiny"], hidden_size=32), jnp.bfloat16)
    for head in ("scalar", "states"):
        params = models.params(head)
        check_params(params.policy, params.value, SamplerSystem(models, 0.2, head).config(2, 4))


def test_a_clock_asks_for_the_dearest_piece_so_far():
    clock = Clock(1)
    assert clock.allows()
    assert not clock.allows(2)
    clock.spent(10)
    clock.spent(5)
    assert clock.allows(4)
    assert not clock.allows(5)


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ("0.6B", 596_049_920),
        ("1.7B", 1_720_574_976),
        ("4B", 4_022_468_096),
        ("8B", 8_190_735_360),
        ("14B", 14_768_307_200),
    ],
)
def test_the_shapes_have_the_sizes_of_the_published_models(shape: str, parameters: int):
    config: ModelConfig = REAL_SHAPES[shape]
    assert config.num_parameters == parameters
