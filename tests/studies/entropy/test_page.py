from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sia_jax.studies.entropy.page import plot, section
from sia_jax.studies.entropy.study import Drawn, Population, study

SETTINGS = {
    "policy": "writer",
    "policy_fingerprint": "0123",
    "value": "judge",
    "value_fingerprint": "4567",
    "seed": 3,
    "floor": 0.02,
    "bins": 2,
    "num_candidates": 10,
    "continuations": 8,
}


def summary_of(with_gold: bool) -> tuple[dict[str, Any], Population, list[Drawn], Any]:
    rng = np.random.default_rng(0)
    entropies = rng.random(40) * 2
    strata = np.where(entropies < 0.5, -1, (entropies > 1.2).astype(int))
    population = Population(np.arange(40) % 5, entropies, entropies / 2, entropies, entropies, strata)
    drawn = []
    for place in np.flatnonzero(strata >= 0) if with_gold else ():
        rewards = rng.normal(size=(2, 8))
        drawn.append(Drawn(int(place), 1.0, np.array([0.6, 0.4]), rng.normal(size=2), rewards))
    figures, measured = study(population, drawn, threshold=1.0, resamples=10)
    summary = {
        "command": "python -m decode.entropy_study --policy writer",
        "settings": SETTINGS,
        "threshold": 1.0,
        "prompts": 5,
        "positions": 40,
        "branching": int((strata >= 0).sum()),
        "drawn": len(drawn),
        "continuations": 16 * len(drawn),
        "outside": 0.0123,
        "figures": {
            name: {"estimate": f.estimate, "low": f.low, "high": f.high} for name, f in figures.items()
        },
        "strata": [{"stratum": s, "low": s + 0.25, "high": s + 0.75} for s in (-1, 0, 1)],
    }
    return summary, population, drawn, measured


def test_numbers_stand_where_they_belong() -> None:
    summary, *_ = summary_of(with_gold=True)
    figures = summary["figures"]
    figures["value/all/spearman"] = {"estimate": 0.712, "low": 0.654, "high": 0.777}
    figures["gold/branching/pearson"] = {"estimate": None, "low": -0.25, "high": None}
    figures["high/share"] = {"estimate": 0.234, "low": 0.2, "high": 0.26}
    figures["bin/1/gold_variance"] = {"estimate": 0.25, "low": -0.04, "high": 0.36}
    lines = section(summary, "study.png").splitlines()
    assert any(
        line.startswith("| entropy, value spread | all positions | 0.71 [0.65, 0.78] |") for line in lines
    )
    (gold,) = [line for line in lines if line.startswith("| entropy, gold variance | those that branch |")]
    assert gold.endswith("| ? [-0.25, ?] |")
    assert "(at least 1 nats) at 23% [20%, 26%] of positions" in "\n".join(lines)
    (row,) = [line for line in lines if line.startswith("| 1.25 to 1.75 |")]
    assert "| 0.50 [-0.20, 0.60] |" in row
    (flat,) = [line for line in lines if "no branch" in line]
    assert flat.endswith("| taken as 0 |  |  |")
    assert lines[-5:] == [
        "![Spread over entropy, position by position](study.png)",
        *("", "```sh", "python -m decode.entropy_study --policy writer", "```"),
    ]
    cells = {line.count("|") for line in lines if line.startswith("|")}
    assert cells == {5, 7}


def test_without_rewards_nothing_is_said_of_gold() -> None:
    summary, *_ = summary_of(with_gold=False)
    page = section(summary, "study.png")
    assert "gold" not in page.lower()
    assert "| entropy, value spread | those that branch |" in page


@pytest.mark.parametrize("with_gold", [True, False])
def test_a_picture(with_gold: bool, tmp_path: Path) -> None:
    summary, population, drawn, measured = summary_of(with_gold)
    path = tmp_path / "new" / "study.png"
    plot(summary, population, drawn, measured, path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width = int.from_bytes(data[16:20], "big")
    assert width == 672 * (1 + with_gold)
