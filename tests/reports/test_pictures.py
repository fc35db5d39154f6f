"""The pictures of a comparison: what they show stands beside them and in the results, and can be read."""

import csv
import itertools
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sia_jax.evaluation.claims import to_json
from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.methods import Method, plan_methods
from sia_jax.evaluation.token_figures import token_figures
from sia_jax.reports.entropy_picture import entropy_picture
from sia_jax.reports.evaluation_pictures import FILES, NAMES, copy_beside, pictures_of, write_pictures
from sia_jax.reports.gate_pictures import gates_picture, junctions_picture
from sia_jax.reports.labels import Label, Mark, place_labels
from sia_jax.reports.pareto import flops_picture, in_lines, seconds_picture, share_picture
from sia_jax.reports.pictures import DPI, Picture, csv_text
from tests.support.comparing import made_up

METHODS = plan_methods([0.1, 0.2, 0.4, 0.6, 0.8], (4, 8), (0.2, 4))


def mean_of(method: Method) -> float:
    """What sparse steering may look like: most is won by the first tokens."""
    share = {"base": 0.0, "dense": 1.0}.get(method.kind, method.ratio or 0.0)
    gain = share**0.4 if method.kind == "entropy" else share
    return gain + (0.2 * method.n if method.n > 1 else 0.0)


def counts(method: Method, index: int) -> dict[str, list[int]]:
    """Of a reply of ten tokens."""
    rng = np.random.default_rng([index, METHODS.index(method)])
    share = {"base": 0.0, "dense": 1.0}.get(method.kind, method.ratio or 0.0)
    shifted = rng.integers(0, 24, size=3)
    return {
        "junctions": rng.binomial(1, share, size=10).tolist(),
        "shifted": np.bincount(shifted, minlength=1).tolist(),
        "unshifted": np.bincount(rng.integers(0, 14, size=7)).tolist(),
    }


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Of methods whose FLOPs, seconds and shares differ."""
    plain = made_up({method.key: mean_of(method) for method in METHODS}, 0.3, METHODS)
    records = {}
    for one in plain.measured:
        method = one.method
        share = {"base": 0.0, "dense": 1.0}.get(method.kind, method.ratio or 0.0)
        records[method.key] = [
            dict(record)
            | {"counts": counts(method, record["index"])}
            | {"flops": {"policy": 1e9 * method.n, "value": 4e10 * share * method.n, "reward": 0.0}}
            | {"seconds": (0.4 + 0.05 * record["seed"]) * method.n * (1 + share)}
            for record in one.records
        ]
    comparison = Comparison(METHODS, records, resamples=300)
    return to_json(comparison) | {"tokens": token_figures(comparison)}


@pytest.fixture(scope="module")
def folder(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of its pictures."""
    folder = tmp_path_factory.mktemp("pictures") / "new"
    assert [picture.name for picture in write_pictures(results, folder)] == list(NAMES)
    return folder


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def numbers_of(picture: Picture) -> list[dict[str, str]]:
    return read_csv(csv_text(picture.columns, picture.rows))


def drawn(picture: Picture) -> Figure:
    figure = Figure(figsize=picture.size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    picture.draw(figure)
    figure.draw_without_rendering()
    return figure


def labels_of(axes: Any) -> list[tuple[str, np.ndarray]]:
    """The labels in a panel, each with its box in pixels."""
    renderer = axes.figure.canvas.get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer).extents) for text in axes.texts]


def test_all_pictures_are_drawn_each_with_its_numbers_beside_it(
    results: dict[str, Any], folder: Path
) -> None:
    assert {path.name for path in folder.iterdir()} == set(FILES)
    for picture in pictures_of(results):
        content = (folder / f"{picture.name}.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        size = struct.unpack(">II", content[16:24])
        assert size == pytest.approx([DPI * side for side in picture.size], abs=1)
        text = (folder / f"{picture.name}.csv").read_text()
        assert text == csv_text(picture.columns, picture.rows)
        assert {len(row) for row in csv.reader(text.splitlines())} == {len(picture.columns)}


def test_pictures_that_a_run_lacks_do_not_stay_from_an_earlier_one(
    results: dict[str, Any], tmp_path: Path
) -> None:
    for name in (*FILES, "mine.png"):
        (tmp_path / name).write_bytes(b"of before")
    few = {"measures": ["gold"], "rows": results["rows"][:2]}
    made = write_pictures(few, tmp_path)
    assert [picture.name for picture in made] == ["pareto", "pareto-flops", "pareto-seconds"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name for picture in made for name in picture.files} | {"mine.png"}


@pytest.mark.parametrize("make", [share_picture, flops_picture, seconds_picture])
def test_the_points_of_a_pareto_picture_are_the_rows_of_the_results(
    results: dict[str, Any], make: Any
) -> None:
    picture = make(results)
    rows = {(row["method"], row["measure"]): row for row in numbers_of(picture)}
    assert len(rows) == len(METHODS) * 2
    for row in results["rows"]:
        for measure in ("gold", "proxy"):
            shown, reward = rows[row["name"], measure], row["rewards"][measure]
            assert [float(shown[name]) for name in ("reward", "low", "high")] == [
                reward[name] for name in ("mean", "low", "high")
            ]
            if make is share_picture:
                assert float(shown["steered"]) == row["ratio"]
            elif make is flops_picture:
                assert float(shown["flops_per_token"]) == sum(row["flops_per_token"].values())
                assert float(shown["flops_per_token_value"]) == row["flops_per_token"]["value"]
            else:
                seeds = row["seconds_per_reply_by_seed"]
                assert float(shown["seconds_per_reply"]) == pytest.approx(np.mean(seeds))
                assert [float(shown[f"seconds_{end}_seed"]) for end in ("fastest", "slowest")] == sorted(
                    seeds
                )
    points = [
        tuple(line.get_xydata()[i])
        for axes in drawn(picture).axes
        for line in axes.lines
        if line.get_marker() not in ("None", "none", "", "_", "|")
        for i in range(len(line.get_xydata()))
    ]
    assert len(points) == len(rows)


def test_seconds_are_told_for_each_seed_and_not_of_what_ran_too_briefly(results: dict[str, Any]) -> None:
    row = results["rows"][0]
    assert row["seconds_per_reply_by_seed"] == pytest.approx([0.4, 0.45])
    brief = [{**one, "seconds_per_reply_by_seed": [None, 0.1]} for one in results["rows"][:2]]
    picture = seconds_picture(results | {"rows": [*brief, *results["rows"][2:]]})
    assert picture is not None
    assert picture.caption.endswith(f"; not drawn, as measured too briefly: 2 of {len(METHODS)} methods")
    assert numbers_of(picture)[0]["seconds_per_reply"] == ""
    assert seconds_picture(results | {"rows": brief}) is None
    old = [{name: x for name, x in one.items() if "seconds" not in name} for one in results["rows"]]
    assert seconds_picture(results | {"rows": old}) is None


def test_gates_are_shown_by_their_paired_gain_over_the_base(results: dict[str, Any]) -> None:
    picture = gates_picture(results)
    assert picture is not None
    rows = {(row["method"], row["measure"]): row for row in numbers_of(picture)}
    gates = [row for row in results["rows"] if row["kind"] in ("entropy", "random") and row["n"] == 1]
    assert len(rows) == 2 * (len(gates) + 1)
    for row in gates:
        shown, gain = rows[row["name"], "gold"], row["differences"]["base"]["gold"]
        assert [float(shown[name]) for name in ("minus_base", "low", "high")] == [
            gain[name] for name in ("mean", "low", "high")
        ]
        assert float(shown["asked_ratio"]) == row["asked_ratio"]
    axes = drawn(picture).axes[0]
    assert any(np.allclose(line.get_ydata(), 0) for line in axes.lines)  # the line of no gain
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == ["10%", "20%", "40%", "60%", "80%"]
    assert {text for text, _ in labels_of(axes)} == {"entropy", "random", "dense"}


def test_without_a_base_gates_are_shown_by_their_rewards(results: dict[str, Any]) -> None:
    rows = [{**row, "differences": {}} for row in results["rows"] if row["kind"] != "base"]
    picture = gates_picture(results | {"rows": rows})
    assert picture is not None
    assert float(numbers_of(picture)[0]["reward"]) == rows[1]["rewards"]["gold"]["mean"]
    assert gates_picture(results | {"rows": [row for row in rows if row["kind"] != "random"]}) is None


def test_junctions_and_entropies_are_shown_as_the_results_have_them(results: dict[str, Any]) -> None:
    picture = junctions_picture(results)
    assert picture is not None
    rows = numbers_of(picture)
    told = [
        (one["name"], tenth, part)
        for one in results["tokens"]["junctions"]
        for tenth, part in enumerate(one["tenths"])
    ]
    assert len(rows) == len(told)
    shown = {(row["method"], int(row["from_percent"])): row for row in rows}
    for name, tenth, part in told:
        row = shown[name, 10 * tenth]
        assert (int(row["junctions"]), int(row["tokens"])) == (part["junctions"], part["tokens"])
        assert float(row["share"]) == part["share"]["mean"]
    assert len(drawn(picture).axes) == 6  # five shares, and a place that is left over
    found, entropies = results["tokens"]["entropy"], entropy_picture(results)
    assert entropies is not None
    rows = numbers_of(entropies)
    assert len(rows) == len(found["bins"])
    for row, part in zip(rows, found["bins"], strict=True):
        assert int(row["shifted"]) == part["shifted"]
        assert float(row["unshifted_share"]) == part["unshifted_share"]["mean"]
        assert float(row["shifted_up_to"]) == part["shifted_up_to"]["mean"]
    assert float(rows[-1]["unshifted_up_to"]) == 1


def test_results_of_earlier_releases_lack_no_more_than_the_pictures_of_tokens(
    results: dict[str, Any],
) -> None:
    old = {name: x for name, x in results.items() if name != "tokens"}
    assert [picture.name for picture in pictures_of(old)] == list(NAMES[:4])


@pytest.mark.parametrize("name", NAMES)
def test_no_label_lies_over_another_one_or_over_a_point_or_beyond_its_panel(
    results: dict[str, Any], name: str
) -> None:
    picture = next(picture for picture in pictures_of(results) if picture.name == name)
    figure = drawn(picture)
    told = 0
    for axes in figure.axes:
        labels = labels_of(axes)
        told += len(labels)
        for (one, a), (other, b) in itertools.combinations(labels, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (one, other)
        frame = axes.get_window_extent().extents
        points = [
            axes.transData.transform(line.get_xydata())
            for line in axes.lines
            if line.get_marker() in ("o", "s", "D", "^", "v", "<", ">", "*")
        ]
        for text, box in labels:
            assert (box[:2] >= frame[:2] - 1).all(), text
            assert (box[2:] <= frame[2:] + 1).all(), text
            for point in np.concatenate(points) if points and name != "junctions" else ():
                assert not ((box[:2] < point) & (point < box[2:])).all(), text
    assert told


def test_labels_find_room_where_points_lie_close() -> None:
    figure = Figure(figsize=(5, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [(0.5 + 0.02 * i, 0.5 + 0.01 * (i % 3)) for i in range(12)]
    axes.plot(*zip(*points, strict=True), "o")
    axes.set(xlim=(0, 1.3), ylim=(0, 1))
    place_labels(
        axes, [Label(*p, f"point {i}", "black") for i, p in enumerate(points)], [Mark(*p) for p in points], []
    )
    boxes = [box for _, box in labels_of(axes)]
    assert len(boxes) == 12
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_page_shows_all_pictures_and_leads_to_their_numbers(
    results: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    made = pictures_of(results)
    (tmp_path / "docs").mkdir()
    text = copy_beside(made, folder, tmp_path / "docs" / "a b.md")
    for picture in made:
        for file in picture.files:
            assert f"(a%20b-{file})" in text
            copy = tmp_path / "docs" / f"a b-{file}"
            assert copy.read_bytes() == (folder / file).read_bytes()
        assert f"![{picture.caption}](" in text


def test_results_stay_strict_json(results: dict[str, Any]) -> None:
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_names_break_between_their_parts_and_not_within_parentheses() -> None:
    assert in_lines("entropy 20%, CBS (2, 2, 16) by reward") == "entropy 20%,\nCBS (2, 2, 16) by reward"
    assert in_lines("ARGS (w 1, T 1) by reward") == "ARGS (w 1, T 1) by reward"
    assert in_lines("base, best of 4 by reward") == "base,\nbest of 4 by reward"
