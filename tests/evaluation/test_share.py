"""What a run does of a comparison: by its shard, by the gates that are known, and by what is there."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.records import Records
from sia_jax.evaluation.share import Share, shard_share, share_file, waiting_text, whole_share
from sia_jax.runs.parts import read_statement, statement_of
from sia_jax.runs.shards import Shard

BASE, ENTROPY, RANDOM = Method("base"), Method("entropy", 0.2), Method("random", 0.2)
GATES = {"entropy": {0.2: GateNumbers(1.5)}}
NAMES = "abcde"
SETTINGS = {"beta": 1.0, "prompts_sha256": "of five"}


def records(count: int = 5) -> Records:
    prompts = [(name, f"digest of {name}") for name in NAMES[:count]]
    return Records([BASE, ENTROPY, RANDOM], [3, 4], prompts, GATES, gold=False)


def record(method: Method, seed: int, index: int, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"method": method.key, "seed": seed, "index": index, "id": NAMES[index]}
    made |= {
        "prompt_sha256": f"digest of {NAMES[index]}",
        "rate": 0.0,
        "finish_reason": "stop",
        "commit": "c",
    }
    made |= {"threshold": 1.5 if method is ENTROPY else "inf", "machine": "m", "proxy": 0.0, "gold": None}
    made |= {"length": 10, "sampled_tokens": 10, "sampled_junctions": 1 + index, "seconds": 0.5}
    return made | {"flops": {"policy": 1.0, "value": 0.0, "reward": 0.0}, "settings": SETTINGS} | changes


def write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def share_of(out: Path, shard: Shard, *, count: int = 5, rows: int = 4, overwrite: bool = False) -> Share:
    settings = SETTINGS | {"prompts_sha256": {5: "of five"}.get(count, "of fewer")}
    options = {"made_by": {"rows": rows}, "overwrite": overwrite}
    return shard_share(out, shard, settings, records(count), **options, check=lambda path: None)


def todo(share: Share) -> dict[tuple[str, int], list[int]]:
    return {(method.key, seed): share.missing((method, seed)) for method, seed in share.units}


def test_shards_part_all_that_a_run_does_but_random_gates_which_wait(tmp_path: Path) -> None:
    shares = [share_of(tmp_path, Shard(index, 2)) for index in range(2)]
    first = {(method, seed) for method in ("base", "entropy-0.2") for seed in (3, 4)}
    assert todo(shares[0]) == {unit: [0, 2, 4] for unit in first}
    assert todo(shares[1]) == {unit: [1, 3] for unit in first}
    assert waiting_text(shares[0].later) == "random 20% under seeds 3, 4"
    assert [(one.total, one.lacking) for one in shares] == [(12, 12), (8, 8)]
    assert shares[1].work == pytest.approx(2 * sum(m.work for m in (BASE, ENTROPY)) * 2)
    whole = whole_share(tmp_path, SETTINGS, records(), overwrite=False)
    everything = {(method, seed) for method in ("base", "entropy-0.2", "random-0.2") for seed in (3, 4)}
    assert (todo(whole), whole.later, whole.part) == (
        {unit: [0, 1, 2, 3, 4] for unit in everything},
        (),
        None,
    )


def test_the_merged_file_says_which_gates_are_known_and_what_is_done(tmp_path: Path) -> None:
    there = [record(ENTROPY, 3, index) for index in range(5)] + [
        record(BASE, 3, index) for index in (0, 1, 2)
    ]
    write(tmp_path / "replies.jsonl", there)
    before = (tmp_path / "replies.jsonl").read_bytes()
    share = share_of(tmp_path, Shard(0, 2))
    assert todo(share) == {
        ("base", 3): [4],
        ("base", 4): [0, 2, 4],
        ("entropy-0.2", 3): [],
        ("entropy-0.2", 4): [0, 2, 4],
        ("random-0.2", 3): [0, 2, 4],
    }
    assert share.gate((RANDOM, 3)) == GateNumbers(rate=15 / 50)
    assert waiting_text(share.later) == "random 20% under seed 4"
    assert (tmp_path / "replies.jsonl").read_bytes() == before
    said = json.loads(statement_of(share.journal.path).read_text())
    assert said["made_with"]["random-0.2, seed 3"] == {"threshold": "inf", "rate": 0.3}
    assert ("random-0.2, seed 4" in said["made_with"], said["whole"]) == (False, False)
    anew = share_of(tmp_path, Shard(0, 2), overwrite=True)
    assert todo(anew) == todo(share_of(tmp_path / "other", Shard(0, 2)))


def test_what_the_part_itself_has_makes_no_gate_known(tmp_path: Path) -> None:
    """Of a single shard too: all shards of a round do the same units."""
    share = share_of(tmp_path, Shard(0, 1))
    write(share.journal.path, [record(ENTROPY, 3, index) for index in range(5)])
    again = share_of(tmp_path, Shard(0, 1))
    assert todo(again)["entropy-0.2", 3] == []
    assert [seed for _, seed in again.later] == [3, 4]


def test_a_part_ends_in_the_order_of_prompts_and_methods(tmp_path: Path) -> None:
    share = share_of(tmp_path, Shard(1, 2))
    with share.journal:
        for index in (3, 1):
            for seed in (4, 3):
                for method in (ENTROPY, BASE):
                    share.journal.write(record(method, seed, index))
    share.finish()
    lines = [json.loads(line) for line in share.journal.path.read_text().splitlines()]
    found = [(line["index"], line["method"], line["seed"]) for line in lines]
    assert found == [(i, m, s) for i in (1, 3) for m in ("base", "entropy-0.2") for s in (3, 4)]
    statement = read_statement(share.journal.path)
    assert [statement.key_of(line, "") for line in lines] == [*statement.all_keys()]


def test_a_shard_without_records_is_a_part(tmp_path: Path) -> None:
    share = share_of(tmp_path, Shard(7, 9))
    assert share.lacking == 0
    share.finish()
    assert share_file(tmp_path, Shard(7, 9)).read_bytes() == b""
    assert read_statement(share.journal.path).said["units"] == []


def test_parts_and_files_that_were_made_in_another_way_are_refused(tmp_path: Path) -> None:
    share = share_of(tmp_path, Shard(0, 2))
    write(share.journal.path, [record(BASE, 3, 0)])
    with pytest.raises(ValueError, match=r"begun in another way: made_by: rows 4 \(here 8\); .*remove it if"):
        share_of(tmp_path, Shard(0, 2), rows=8)
    with pytest.raises(ValueError, match=r"begun in another way: input: units 5 \(here 4\)"):
        share_of(tmp_path, Shard(0, 2), count=4)
    write(tmp_path / "replies.jsonl", [record(BASE, 3, 0, seconds=0.6)])
    with pytest.raises(ValueError, match=r"0-of-2.jsonl, line 1: prompt 'a' has two replies of base"):
        share_of(tmp_path, Shard(0, 2))
    write(tmp_path / "replies.jsonl", [record(ENTROPY, 3, 1, threshold=2.0)])
    with pytest.raises(ValueError, match=r"entropy 20% under seed 3 was made with .*2.0"):
        share_of(tmp_path, Shard(0, 2))
    write(tmp_path / "replies.jsonl", [record(BASE, 3, 1, settings={"beta": 2.0})])
    with pytest.raises(ValueError, match=r"replies.jsonl, line 1: .*other settings: beta 2.0 \(now 1.0\)"):
        share_of(tmp_path, Shard(0, 2))


def test_shards_go_on_from_a_file_of_fewer_prompts(tmp_path: Path) -> None:
    of_three = {"settings": SETTINGS | {"prompts_sha256": "of three"}}
    write(tmp_path / "replies.jsonl", [record(BASE, 3, index, **of_three) for index in range(3)])
    assert todo(share_of(tmp_path, Shard(0, 2)))["base", 3] == [4]


def test_a_file_is_checked_before_a_part_is_begun(tmp_path: Path) -> None:
    def check(path: Path) -> None:
        raise ValueError(f"{path.name} lacks something")

    with pytest.raises(ValueError, match=r"^replies\.jsonl lacks something"):
        shard_share(tmp_path, Shard(0, 2), SETTINGS, records(), made_by={}, overwrite=False, check=check)
    assert [*tmp_path.iterdir()] == []
