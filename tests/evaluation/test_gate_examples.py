"""Features and gains of recorded tokens against those of the logits and values that were recorded."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from sia_jax.evaluation.gate_examples import read_examples
from tests.support.dense_records import SETTINGS, dense_record, save_records


def test_features_are_those_of_the_whole_distribution_at_temperature_1(tmp_path: Path) -> None:
    record, made_of = dense_record(0, 9, seed=0, temperature=0.5)
    (found,), settings = read_examples(save_records(tmp_path / "r.jsonl", [record]), "shifted")
    logits = made_of["logits"].astype(np.float64)
    ordered = np.sort(logits, axis=1)
    inside = softmax(ordered[:, -4:], axis=1)
    entropy = -np.sum(inside * np.log(inside), axis=1)
    expected = [
        entropy,
        np.append(0, entropy[:-1]),
        softmax(logits, axis=1).max(axis=1),
        ordered[:, -1] - ordered[:, -2],
        np.arange(9),
    ]
    np.testing.assert_allclose(found.features, np.column_stack(expected), rtol=1e-5, atol=1e-6)
    assert found.shifted.tolist() == record["shifted"]
    assert found.gain is None
    assert settings == SETTINGS | {"temperature": 0.5}


def test_a_second_candidate_without_probability_has_the_largest_gap_that_counts(tmp_path: Path) -> None:
    record, _ = dense_record(0, 3, seed=1)
    record["candidates"]["logits"][1][1:] = [None] * 3
    record["candidates"]["logits"][2][0] = record["candidates"]["logits"][2][1] + 25.0
    (found,), _ = read_examples(save_records(tmp_path / "r.jsonl", [record]), "shifted")
    assert found.features[1:, 3].tolist() == [20.0, 20.0]
    assert found.features[0, 3] < 20


def test_the_tokens_of_one_prompt_are_one_and_each_reply_begins_anew(tmp_path: Path) -> None:
    records = [dense_record(index, 4 + index, seed)[0] for seed in range(2) for index in (1, 0)]
    found, _ = read_examples(save_records(tmp_path / "r.jsonl", records), "shifted")
    assert [prompt.features[:, 4].tolist() for prompt in found] == [
        [*range(4), *range(4)],
        [*range(5), *range(5)],
    ]
    assert [prompt.features[[0, len(prompt.shifted) // 2], 1].tolist() for prompt in found] == [[0, 0]] * 2


@pytest.mark.parametrize(("temperature", "kept"), [(1.0, None), (0.7, 3), (0.0, None), (2.0, 1)])
def test_the_gain_is_of_the_law_that_was_drawn_from_over_the_policy_s(
    tmp_path: Path, temperature: float, kept: int | None
) -> None:
    record, made_of = dense_record(0, 8, seed=2, temperature=temperature, kept=kept)
    (found,), _ = read_examples(save_records(tmp_path / "r.jsonl", [record]), "gain")
    assert found.gain is not None
    n, divisor = kept or 4, temperature or 1.0
    best = np.sort(made_of["logits"].astype(np.float64), axis=1)[:, ::-1][:, :n]
    values = made_of["values"].astype(np.float64)[:, :n]
    for t in range(8):
        p, q = softmax(best[t] / divisor), softmax((best[t] + values[t]) / divisor)
        assert found.gain[t] == pytest.approx(q @ values[t] - p @ values[t], abs=1e-5)
    assert (found.gain > -1e-6).all()  # steering by exp(V) never expects less of V
    assert (found.gain.max() > 0.01) == (n > 1)


def test_one_candidate_needs_no_value(tmp_path: Path) -> None:
    record, _ = dense_record(0, 5, seed=3, kept=1)
    record["candidates"]["values"] = [[None] * 4] * 5
    (found,), _ = read_examples(save_records(tmp_path / "r.jsonl", [record]), "gain")
    assert found.gain is not None
    assert found.gain.tolist() == [0] * 5


def test_a_reply_without_tokens_is_read(tmp_path: Path) -> None:
    empty, record = dense_record(0, 0, seed=0)[0], dense_record(1, 2, seed=0)[0]
    found, _ = read_examples(save_records(tmp_path / "r.jsonl", [empty, record]), "gain")
    assert [prompt.features.shape for prompt in found] == [(0, 5), (2, 5)]
    with pytest.raises(ValueError, match="there is no token in it"):
        read_examples(save_records(tmp_path / "e.jsonl", [empty]), "shifted")


def changed(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """With other fields; those of candidates and settings by a name with a prefix; "..." removes one."""
    found = copy.deepcopy(record)
    for name, value in changes.items():
        part, _, field = name.partition("__")
        place = found if not field else found[part]
        place[field or part] = value
        if value == "...":
            del place[field or part]
    return found


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"junction": [True, False]}, "1 of 2 tokens were not steered"),
        ({"candidates": "..."}, "generate with --record"),
        ({"candidates": []}, "generate with --record"),
        ({"candidates__logits": "..."}, "'logits'"),
        ({"candidates__logits": [[1.0, 0.5, 0, 0]]}, "logits must be a list for each of 2 tokens"),
        ({"candidates__logits": [[1.0, 0.5], [1.0]]}, "equally many"),
        ({"candidates__logits": [[], []]}, "at least one"),
        ({"candidates__logits": [[1.0, True, 0, 0]] * 2}, "logits must be numbers or null"),
        ({"candidates__logits": [[1.0, 1e31, 0, 0]] * 2}, "logits must be numbers or null"),
        ({"candidates__logits": [[1.0, 0.5]] * 2}, r"are of \(2, 2\) and \(2, 4\)"),
        ({"candidates__logits": [[1.0, 1.5, 0, 0]] * 2}, "first candidate must be the likeliest"),
        ({"candidates__logits": [[None] * 4] * 2}, "first candidate must be the likeliest"),
        ({"candidates__policy_logprobs": [[0.1, -1, -2, -3]] * 2}, "a number up to 0"),
        ({"candidates__policy_logprobs": [[None, -1, -2, -3]] * 2}, "a number up to 0"),
        ({"candidates__values": [[0.0, None, 0, 0]] * 2}, "values of 2 of 2 tokens .* --read-all 1"),
        ({"candidates__logprobs": [[None] * 4] * 2}, "values of 2 of 2 tokens"),
        ({"candidates__logprobs": [[1.0, -1, -1, -1]] * 2}, "logprobs must be up to 0"),
        ({"settings": "..."}, "settings must be an object"),
        ({"settings__repetition_penalty": 1.2}, "generate without --repetition-penalty"),
        ({"settings__min_new_tokens": 3}, "generate without --min-new-tokens"),
        ({"settings__temperature": "hot"}, "temperature must be a number"),
        ({"settings__temperature": -1}, "temperature must be 0"),
        ({"settings__num_candidates": 5}, r"other settings than the first: \['num_candidates'\]"),
        ({"entropy": [math.nan, 1.0]}, "NaN"),
    ],
)
def test_what_is_no_such_reply_is_refused_by_its_line(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    good, _ = dense_record(0, 2, seed=4)
    path = save_records(tmp_path / "r.jsonl", [good, changed(good, **changes)])
    with pytest.raises(ValueError, match=why) as error:
        read_examples(path, "gain")
    assert "line 2" in str(error.value)


def test_one_candidate_alone_has_no_gap(tmp_path: Path) -> None:
    record, _ = dense_record(0, 2, seed=5)
    alone = {name: [row[:1] for row in rows] for name, rows in record["candidates"].items()}
    with pytest.raises(ValueError, match="--num-candidates 2 or more"):
        read_examples(save_records(tmp_path / "r.jsonl", [record | {"candidates": alone}]), "shifted")
