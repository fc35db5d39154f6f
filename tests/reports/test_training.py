"""The metrics of a training run: kept up to a step, and refused by the line where they are damaged."""

import json
from pathlib import Path

import pytest

from sia_jax.reports.training import MetricsLog, draw_curves

STEPS = [
    {"kind": "step", "step": step, "loss": 1 / step, "tokens_per_second": 9, "trajectories": [step, 0]}
    for step in (1, 2, 3)
]
EVALUATION = {"kind": "evaluation", "step": 2, "loss": 0.5, "r2": None, "rank_agreement": 0.75}


@pytest.fixture
def log(tmp_path: Path) -> MetricsLog:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for line in (*STEPS[:2], EVALUATION, STEPS[2]):
        log.write(line)
    return log


def test_lines_of_later_steps_and_one_that_was_cut_short_are_dropped(log: MetricsLog) -> None:
    with log.path.open("a") as file:
        file.write('{"kind": "st')
    assert log.read() == [*STEPS[:2], EVALUATION, STEPS[2]]
    log.begin(2)
    assert log.read() == [*STEPS[:2], EVALUATION]
    assert log.path.read_text().endswith("}\n")


@pytest.mark.parametrize(
    "line",
    [
        *("{", "", "[1]", "7", "\xff", '{"loss": 1}', '{"step": "2"}', '{"step": -1}', '{"step": 2.5}'),
        *('{"step": 2, "loss": "low"}', '{"step": 2, "loss": [1]}', '{"step": 2, "loss": NaN}'),
        *(f'{{"step": 2, "trajectories": {numbers}}}' for numbers in ("3", "[0.5]", "[1, -1]", "null")),
        '{"step": 2, "step": 3}',
    ],
)
def test_a_damaged_line_is_named_with_what_to_do(log: MetricsLog, line: str) -> None:
    before = log.path.read_bytes()
    log.path.write_bytes(before + line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 5.*; remove the line, or name another --out"):
        log.begin(3)
    assert log.path.read_bytes() == before + line.encode("latin-1") + b"\n"


def test_curves_of_lines_that_lack_numbers_are_drawn(log: MetricsLog, tmp_path: Path) -> None:
    lines = [*log.read(), {"step": 4, "tokens": 5}, {"kind": "step", "step": 5, "loss": None}]
    draw_curves(json.loads(json.dumps(lines)), tmp_path / "curves.png", "a run")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
