"""decode.own_prefixes on tiny models: greedy prefixes that dense steering shares tell what is right."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from decode import generate, own_prefixes, promise
from sia_jax.evaluation.own_prefixes import gated_reply, reading_order
from tests.support.pairs import save_tiny_pair

STEERED = 3
"""So many tokens the gate steers, and leaves all that follow alone."""

GATE = f"position({STEERED})"
BETA = 2.0


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, with models of random weights beside them."""
    folder = tmp_path_factory.mktemp("own")
    save_tiny_pair(folder)
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Which train is number {i}?"}) + "\n" for i in range(12)))
    return path


def options(prompts: Path, **changed: Any) -> dict[str, Any]:
    common = {
        "policy": str(prompts.parent / "policy"),
        "value": str(prompts.parent / "value"),
        "prompts": str(prompts),
        "temperature": 0.0,
        "beta": BETA,
        "max_new_tokens": 12,
        "batch": 6,
    }
    return common | changed


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def replies(prompts: Path) -> dict[str, Path]:
    """Greedy replies: densely steered, and steered at the first tokens alone."""
    found = {}
    where: dict[str, dict[str, Any]] = {
        "dense": {"threshold": -math.inf},
        "gated": {"gate": GATE},
    }
    for name, given in where.items():
        found[name] = prompts.parent / f"{name}.jsonl"
        generate.main(generate.Args(**options(prompts, **given), output=str(found[name])))
    return found


@pytest.fixture(scope="module")
def reread(prompts: Path, replies: dict[str, Path]) -> Path:
    out = prompts.parent / "own.jsonl"
    own_prefixes.main(
        own_prefixes.Args(**options(prompts, gate=GATE), replies=str(replies["gated"]), output=str(out))
    )
    return out


def test_where_the_prefix_is_that_of_dense_steering_so_is_the_answer(
    replies: dict[str, Path], reread: Path
) -> None:
    dense = {line["id"]: line for line in lines_of(replies["dense"])}
    answers = []
    for line in lines_of(reread):
        own = dense[line["id"]]
        for place, token in enumerate(line["tokens"]):
            assert line["shifted"][place] == own["shifted"][place]
            answers += [line["shifted"][place]] if place >= STEERED else []
            if own["tokens"][place] != token:
                break  # from here on the prefixes differ
    assert len(answers) >= 12  # one of each reply at least
    assert set(answers) == {True, False}


def test_tokens_that_were_steered_keep_their_records(replies: dict[str, Path], reread: Path) -> None:
    gated = {line["id"]: line for line in lines_of(replies["gated"])}
    for line in lines_of(reread):
        own = gated[line["id"]]
        assert line["gate"] == own["junction"]
        assert line["junction"] == [True] * len(own["tokens"])
        assert line["tokens"] == own["tokens"]
        assert line["entropy"] == own["entropy"]
        assert line["shifted"][:STEERED] == own["shifted"][:STEERED]


def test_the_lines_are_what_a_promise_is_checked_on(
    replies: dict[str, Path], reread: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = str(replies["dense"])
    promise.main(promise.Args(replies=dense, miss_rates=(0.5,), on_average=True, check=str(reread)))
    assert "missed, others" in capsys.readouterr().out


def test_a_run_goes_on_with_what_is_missing(prompts: Path, replies: dict[str, Path], reread: Path) -> None:
    whole = lines_of(reread)
    part = prompts.parent / "part.jsonl"
    part.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in whole[:5]))
    args = own_prefixes.Args(**options(prompts, gate=GATE), replies=str(replies["gated"]), output=str(part))
    own_prefixes.main(args)
    assert sorted(lines_of(part), key=lambda line: line["index"]) == sorted(
        whole, key=lambda line: line["index"]
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beta": 3.0}, "other settings: beta 2.0 (now 3.0)"),
        ({"gate": "position(8)"}, "other settings: gate"),
        ({"stop": ("a",)}, "--stop looks at a reply from its first token on"),
        ({"presence_penalty": 0.5}, "--presence-penalty looks at a reply"),
        ({"value": None, "gate": None, "beta": None}, "--value is needed"),
    ],
)
def test_what_the_replies_were_not_made_with_is_refused(
    prompts: Path, replies: dict[str, Path], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    given = options(prompts, gate=GATE) | changed
    args = own_prefixes.Args(**given, replies=str(replies["gated"]), output=str(tmp_path / "o.jsonl"))
    with pytest.raises(SystemExit) as error:
        own_prefixes.main(args)
    assert message in str(error.value.code)
    assert not (tmp_path / "o.jsonl").exists()


def test_prefixes_of_one_reply_are_read_one_after_the_other() -> None:
    replies = [
        gated_reply(
            {
                "entropy": [0.0] * len(steered),
                "shifted": [False] * len(steered),
                "junction": steered,
                "tokens": [1] * len(steered),
            },
            2,
        )
        for steered in ([False, True, False], [True], [False, False, False])
    ]
    assert list(reading_order(replies, 2)) == [(0, 0), (0, 2), (2, 0), (2, 1), (2, 2)]
    assert list(reading_order(replies, 3)) == [(0, 0), (2, 0), (0, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": [0]}, "tokens must be a list of 2 ids"),
        ({"tokens": [0, 9]}, "ids in 0 .. 8"),
        ({"tokens": [0, True]}, "ids in 0 .. 8"),
        ({"junction": [0, 1]}, "must be true or false"),
    ],
)
def test_a_line_that_is_no_reply_is_refused(changed: dict[str, Any], message: str) -> None:
    line = {"entropy": [0.0, 1.0], "shifted": [False, True], "junction": [False, True], "tokens": [0, 1]}
    with pytest.raises(ValueError, match=message):
        gated_reply(line | changed, 9)
