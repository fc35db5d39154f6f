"""train.iterate: rounds of steered and unsteered replies, training that goes on, validation, and the best."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

import sia_jax
from sia_jax.data.records import Record, read_records
from tests.support.checkpoints import save_tiny_value_model
from tests.support.iterating import (
    JUDGED,
    REPLIES,
    STEERED,
    TRAINING,
    VALIDATION,
    save_policy_and_prompts,
    usual_args,
)
from train import iterate, iteration, label, prepare, value_model


@pytest.fixture(scope="module", autouse=True)
def drawn() -> None:
    """No blank pictures: no other test draws this one within seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_policy_and_prompts(folder)
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run of two rounds has written."""
    out = tmp_path_factory.mktemp("finished") / "out"
    iterate.main(usual_args(folder, out))
    return out


def results_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def by_prompt(folder: Path) -> dict[tuple[str, str], Record]:
    """The records of a labelled set, by the prompt's text and the number of the reply."""
    return {
        (record.messages[0]["content"], record.id.rpartition(":")[2]): record
        for record in read_records(folder)
    }


def ids_of(records: Any) -> list[tuple[list[int], list[int], float | None]]:
    return [(r.prompt_ids.tolist(), r.reply_ids.tolist(), r.reward) for r in records]


# What a round learns from


def test_a_round_learns_from_the_very_ids_of_all_replies_so_far(finished: Path) -> None:
    first, second = finished / "round-1", finished / "round-2"
    assert not (first / "steered").exists()
    sets = [
        first / "unsteered-labelled",
        first / "unsteered-labelled",
        second / "unsteered-labelled",
        second / "steered-labelled",
    ]
    sizes = [len(read_records(path)) for path in sets]
    most = [TRAINING * count for count in (REPLIES, REPLIES, REPLIES - STEERED, STEERED)]
    assert all(
        0.8 * most_ <= size <= most_ for size, most_ in zip(sizes, most, strict=True)
    )  # some are blank
    assert ids_of(read_records(first / "data")) == ids_of(read_records(sets[0]))
    joined = list(read_records(second / "data"))
    assert ids_of(joined) == [one for path in sets[1:] for one in ids_of(read_records(path))]
    assert len({record.id for record in joined}) == len(joined)
    assert len({record.group for record in joined}) == TRAINING


def test_steered_replies_are_steered_with_the_value_model_of_the_round_before(
    folder: Path, finished: Path
) -> None:
    report = json.loads((finished / "round-2" / "steered" / "report.json").read_text())
    own = sia_jax.checkpoints.value_model.fingerprint_of_value_model(finished / "round-1" / "value" / "best")
    assert report["generation"]["value_fingerprint"] == own[:16]
    assert (report["generation"]["threshold"], report["generation"]["beta"]) == (2.0, 2.0)
    seeds = [
        json.loads((path / "report.json").read_text())["generation"]["seed"]
        for path in sorted(finished.glob("round-*/*steered"))
    ]
    assert len(set(seeds)) == len(seeds) == 3


def test_a_round_goes_on_from_the_value_model_before_it(finished: Path) -> None:
    settings = [json.loads((finished / f"round-{n}" / "value" / "settings.json").read_text()) for n in (1, 2)]
    assert [one["init"] for one in settings] == [None, str(finished / "round-1" / "value" / "best")]
    assert len({one["seed"] for one in settings}) == 1  # which holds out the same prompts


# What it comes to


def test_the_numbers_of_results_page_and_curves_are_those_of_the_validation_replies(finished: Path) -> None:
    rows = {row["name"]: row for row in results_of(finished)["rows"]}
    page = (finished / "iteration.md").read_text()
    cells = {line.split("|")[1].strip(" *"): line.split("|") for line in page.splitlines() if line[:1] == "|"}
    with (finished / "curves.csv").open() as file:
        drawn = {row["what steers"]: row for row in csv.DictReader(file)}
    alone = by_prompt(finished / "policy-alone" / "validation-labelled")
    for name, path in {
        "policy alone": finished / "policy-alone",
        "round 1": finished / "round-1",
        "round 2": finished / "round-2",
    }.items():
        own = by_prompt(path / "validation-labelled")
        mean = np.mean([record.reward for record in own.values()])
        assert rows[name]["reward"]["mean"] == pytest.approx(mean)
        assert rows[name]["replies"] + rows[name]["missing"] == VALIDATION * JUDGED
        assert rows[name]["replies"] == len(own)
        assert float(drawn[name]["reward"]) == rows[name]["reward"]["mean"]
        assert cells[name][3].split()[0] == f"{mean:.3f}"
        if name == "policy alone":
            continue
        gains = [own[pair].reward - alone[pair].reward for pair in own.keys() & alone.keys()]  # type: ignore[operator]
        assert rows[name]["gain"]["mean"] == pytest.approx(np.mean(gains))
        assert cells[name][4].split()[0] == f"{np.mean(gains):+.3f}"
        low, high = (rows[name]["gain"][end] for end in ("low", "high"))
        assert low < rows[name]["gain"]["mean"] < high
        assert float(drawn[name]["gain low"]) == low
    assert any(
        own.reply_ids.tolist() != alone[pair].reply_ids.tolist()
        for pair, own in by_prompt(finished / "round-2" / "validation-labelled").items()
        if pair in alone
    )


def test_the_best_is_the_round_of_the_highest_reward_with_a_card_for_the_hub(
    folder: Path, finished: Path
) -> None:
    results = results_of(finished)
    rounds = [row for row in results["rows"] if row["name"] != "policy alone"]
    best = max(rounds, key=lambda row: row["reward"]["mean"])
    assert results["best"] == best["name"]
    source = finished / best["name"].replace(" ", "-") / "value" / "best"
    for path in source.rglob("*"):
        if path.is_file():
            assert (finished / "best" / path.relative_to(source)).read_bytes() == path.read_bytes()
    sia_jax.load_value_model(finished / "best", sia_jax.load_policy(folder / "policy"))
    card = ModelCard.load(finished / "best" / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "sia_jax")
    assert card.data.eval_results[0].metric_value == best["reward"]["mean"]
    assert "threshold 2 nats, beta 2" in card.text
    assert "tests.support.judging:letters" in card.text


def test_the_picture_and_the_page_are_there(finished: Path) -> None:
    page = (finished / "iteration.md").read_text()
    assert (finished / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert re.search(r"!\[.*\]\(curves\.png\)", page)
    assert f"{STEERED} of them steered with the value model so far" in page


# Going on


def test_rounds_that_are_added_later_are_those_of_one_run(
    folder: Path, finished: Path, tmp_path: Path
) -> None:
    args = usual_args(folder, tmp_path / "out", rounds=1)
    iterate.main(args)
    assert [row["name"] for row in results_of(tmp_path / "out")["rows"]] == ["policy alone", "round 1"]
    iterate.main(usual_args(folder, tmp_path / "out"))
    assert results_of(tmp_path / "out")["rows"] == results_of(finished)["rows"]
    with pytest.raises(SystemExit, match="holds 2 rounds, and --rounds is 1; pass --rounds 2"):
        iterate.main(args)


def test_a_run_that_ends_after_every_program_goes_on_to_the_same_numbers(
    folder: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run does one program more, and ends before the diary says so."""
    ended: list[str] = []
    for module in (prepare, label, value_model):

        def main(args: Any, real: Any = module.main) -> None:
            real(args)
            if str(args.out) not in ended:
                ended.append(str(args.out))
                raise KeyboardInterrupt

        monkeypatch.setattr(module, "main", main)
    out = tmp_path / "out"
    # A program for each: three validations, three sets of replies, their labels, and two trainings.
    for number in range(1, 15):
        with pytest.raises(SystemExit) as stopped:
            iterate.main(usual_args(folder, out))
        assert (stopped.value.code, len(ended)) == (130, number)
    monkeypatch.undo()
    iterate.main(usual_args(folder, out))
    assert results_of(out)["rows"] == results_of(finished)["rows"]
    assert results_of(out)["best"] == results_of(finished)["best"]


# What is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replies": 6}, r"replies 4 \(now 6\)"),
        ({"steered": 0.25}, r"steered 0.5 \(now 0.25\)"),
        ({"threshold": 1.0}, r"threshold 2.0 \(now 1.0\)"),
        ({"beta": None}, r"beta 2.0 \(now None\)"),
        ({"learn_from": "last"}, r"learn_from 'all' \(now 'last'\)"),
        ({"learning_rate": 1e-3}, r"learning_rate 0.01 \(now 0.001\)"),
        ({"seed": 1}, r"seed 0 \(now 1\)"),
        ({"reward_function": ("sia_jax.rewards.opinion_words:balance",)}, "reward_function .* rewards "),
        ({"prompts": "validation", "validation": "prompts"}, "prompts_sha256 .* validation_sha256 "),
    ],
)
def test_a_changed_option_is_refused_by_its_name(
    changes: dict[str, Any], said: str, folder: Path, finished: Path
) -> None:
    before = (finished / "iteration.json").read_bytes()
    if "prompts" in changes:
        changes = {"prompts": str(folder / "validation.jsonl"), "validation": str(folder / "train.jsonl")}
    with pytest.raises(
        SystemExit, match=f"holds an iteration of other settings: .*{said}.*name another --out"
    ):
        iterate.main(usual_args(folder, finished, **changes))
    assert (finished / "iteration.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 0}, "--rounds must be 1 or more, got 0"),
        ({"steered": 1.5}, "--steered must be a share of the replies, from 0 to 1, got 1.5"),
        ({"steered": 0.1}, "--steered 0.1 of --replies 4 comes to 0 replies to a prompt; raise --replies"),
        ({"steered": 0.9}, "comes to 4 replies"),
        ({"threshold": float("nan")}, "--threshold must not be NaN"),
        ({"reward_function": ()}, "there is no reward"),
        ({"batch_tokens": 1024}, "--batch-tokens is for --reward DIR"),
        ({"head_rank": 3}, "--head-rank is for --head vocab"),
        ({"license": "Apache 2.0"}, "--license must be an identifier"),
        ({"max_new_tokens": 64}, "--max-new-tokens 64 leaves no room for a prompt in --max-length 64"),
        ({"value": "none such"}, "none such"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    changes: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=re.escape(said)):
        iterate.main(usual_args(folder, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_prompt_of_training_and_validation_is_named(folder: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.jsonl"
    own = (folder / "validation.jsonl").read_text(), (folder / "train.jsonl").read_text()
    mixed.write_text(own[0] + own[1].splitlines(keepends=True)[3])
    with pytest.raises(SystemExit, match=r"1 prompts of --validation .* the first .*it, 003\?"):
        iterate.main(usual_args(folder, tmp_path / "out", validation=str(mixed)))


def test_a_value_model_that_cannot_be_trained_further_is_said_at_once(folder: Path, tmp_path: Path) -> None:
    save_tiny_value_model(tmp_path / "value", sia_jax.load_policy(folder / "policy"))
    with pytest.raises(SystemExit, match=r"was made with --rank 4 \(now 8\), --alpha 8.0 \(now 32.0\)"):
        iterate.main(usual_args(folder, tmp_path / "out", value=str(tmp_path / "value"), rank=8))
    assert not (tmp_path / "out").exists()


def test_a_seed_of_each_use_is_its_own() -> None:
    found = {iteration.seed_of(0, f"round {n}", kind) for n in range(50) for kind in ("steered", "unsteered")}
    assert len(found) == 100
    assert iteration.seed_of(0, "validation") != iteration.seed_of(1, "validation")
