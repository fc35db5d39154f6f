"""What is asked of the engine's speed."""

from sia_jax.benchmarks.engine import engine_targets


def test_targets_are_the_designs_ratios() -> None:
    record = {
        "lock_step": {"systems": [{"tokens_per_second": 150.0}, {"tokens_per_second": 100.0}]},
        "neighbours": [{"tokens_per_second": 100.0}, {"tokens_per_second": 60.0}],
        "bounded_neighbours": [{"tokens_per_second": 100.0}, {"tokens_per_second": 80.0}],
    }
    found = engine_targets(record)
    assert [(row["value"], row["target"], row["met"]) for row in found] == [
        (1.5, 1.4, True),
        (0.6, 0.68, False),
        (0.8, 0.75, True),
    ]
