"""train.benchmark at a tiny shape: all systems are given the same tokens, and rates are of these alone."""

import itertools
import json
import statistics
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sia_jax.benchmarks import torch_baseline, training
from sia_jax.costs.roofline import DeviceRates
from sia_jax.reports.benchmarks import section
from train import benchmark

STEPS, LENGTH, SECONDS, PEAK = 2, 256, 0.5, 1e9
OURS = {
    "packed rows, one at a time": (1, 16),
    "packed rows, two at a time": (2, 16),
    "every trajectory padded to a row": (8, 1),
}
"""System -> (rows that run at a time, most trajectories of a row)."""
THEIRS = {
    "torch + PEFT, every trajectory padded to a row": LENGTH,
    "torch + PEFT, the official way: 8 in order, padded to the longest": None,
}
"""System -> what each trajectory is padded to; None: the longest beside it."""

Tokens = dict[str, list[tuple[int, int]]]
"""System -> of each batch (real tokens, padding)."""


class SpiedTrainer(torch_baseline.TorchTrainer):
    """Keeps account of what the network is given."""

    seen: Tokens

    def __init__(self, *args: Any):
        super().__init__(*args)
        backbone = self._backbone

        def call(input_ids: Any, **options: Any) -> Any:
            self.given.append(input_ids.numpy())
            return backbone(input_ids=input_ids, **options)

        self._backbone = call

    def step(self, batch: Any, rows: int, width: int | None = None) -> float:
        self.given: list[np.ndarray] = []
        seconds = super().step(batch, rows, width)
        for ids, trajectory in zip(itertools.chain(*self.given), batch, strict=True):
            real = np.concatenate([trajectory.prompt_ids, trajectory.reply_ids])
            np.testing.assert_array_equal(ids, np.pad(real, (0, len(ids) - len(real))))
        real = sum(t.length for t in batch)
        (name,) = (name for name, to in THEIRS.items() if to == width)
        self.seen.setdefault(name, []).append((real, sum(ids.size for ids in self.given) - real))
        return seconds


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Tokens]:
    """(the record, the page, the tokens), by a clock on which every step takes SECONDS."""
    out, seen = tmp_path_factory.mktemp("docs") / "benchmarks", {}
    train_step, ticks = training.train_step, itertools.count()

    def spied_step(frozen: Any, state: Any, batch: Any, **options: Any) -> Any:
        segments = np.asarray(batch.segment_ids)[: int(batch.micro_batches)]
        shape = segments.shape[1], batch.numbers.shape[-1]
        (name,) = (name for name, is_of in OURS.items() if is_of == shape)
        seen.setdefault(name, []).append((int((segments > 0).sum()), int((segments == 0).sum())))
        return train_step(frozen, state, batch, **options)

    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(perf_counter=lambda: SECONDS * next(ticks))
        patch.setattr(training, "time", clock)
        patch.setattr(torch_baseline, "time", clock)
        patch.setattr(benchmark, "measure_device", lambda: DeviceRates(1e9, PEAK))
        patch.setattr(training, "train_step", spied_step)
        patch.setattr(torch_baseline, "TorchTrainer", SpiedTrainer)
        patch.setattr(SpiedTrainer, "seen", seen, raising=False)
        benchmark.main(benchmark.Args(shape="tiny", steps=STEPS, row_length=LENGTH, out=out))
    (path,) = out.glob("*-training.json")
    return json.loads(path.read_text()), (out.parent / "benchmarks.md").read_text(), seen


def test_all_systems_are_given_the_same_tokens_and_real_ones_and_padding_fill_their_rows(run):
    _, _, seen = run
    assert seen.keys() == OURS.keys() | THEIRS.keys()
    real = [tokens for tokens, _ in seen["packed rows, one at a time"]]
    assert len(set(real)) == STEPS + 1
    for name, counts in seen.items():
        assert [tokens for tokens, _ in counts] == real, name
        for tokens, padding in counts:
            if name in OURS:
                assert (tokens + padding) % (OURS[name][0] * LENGTH) == 0
            if name.endswith("padded to a row"):
                assert tokens + padding == training.BATCH * LENGTH
            else:
                assert tokens + padding < training.BATCH * LENGTH


def test_rates_count_tokens_without_padding_and_the_floor_is_that_of_their_flops(run):
    record, _, seen = run
    real = [tokens for tokens, _ in seen["packed rows, one at a time"]][1:]  # the first only compiles
    columns = sum(real) / (STEPS * training.BATCH) / 2
    # D 64, F 128, N 4, K 2, H 16, two layers; forward, and backward to the activations.
    weights = 2 * (64 * 16 * (2 * 4 + 2 * 2) + 3 * 64 * 128)
    flops = 2 * 2 * (weights + 2 * 2 * columns * 4 * 16) * sum(real)
    assert [row["system"] for row in record["rows"]] == [*OURS, *THEIRS]
    for row in record["rows"]:
        assert row["tokens_per_second"] == pytest.approx(statistics.median(real) / SECONDS)
        assert row["best_tokens_per_second"] == pytest.approx(max(real) / SECONDS)
        assert row["of_floor"] == pytest.approx(flops / PEAK / (STEPS * SECONDS))
    assert [(row["value"], row["met"]) for row in record["targets"]] == [(1.0, True), (1.0, False)]


def test_the_page_is_made_of_the_record(run):
    record, page, _ = run
    assert record["kind"] == "training"
    assert (record["steps"], record["row_length"], record["shape"]) == (STEPS, LENGTH, "tiny")
    assert record["baseline_versions"].keys() == {"torch", "peft", "transformers"}
    for row in record["rows"]:
        assert f"| {row['system']} | {row['tokens_per_second']:.0f} (" in page
    for target in record["targets"]:
        assert f"| {target['name']} | 1.00 | {target['target']:g} |" in page
    assert f"of {record['mean_tokens']:.0f} tokens in the mean" in section(record)
