"""Sets as one: all records with their ids and rewards, in order, and none of another tokenizer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sia_jax.data.joining import join_sets
from sia_jax.data.records import Record, read_records, write_records


def write(folder: Path, first: int, **meta: Any) -> Path:
    records = [
        Record(f"a:{n}", f"g{n}", (), np.array([n, 1], np.int32), np.array([n, 2, 3], np.int32), float(n))
        for n in range(first, first + 3)
    ]
    write_records(folder, records, {"tokenizer": "t", "markup": None, "seed": first} | meta)
    return folder


def test_all_records_come_in_the_order_of_the_sets_with_ids_of_their_own(tmp_path: Path) -> None:
    sets = {
        "one": write(tmp_path / "1", 0),
        "two": write(tmp_path / "2", 0),
        "three": write(tmp_path / "3", 7),
    }
    assert join_sets(tmp_path / "joined", sets) == 9
    joined = read_records(tmp_path / "joined")
    expected = [(name, record) for name, folder in sets.items() for record in read_records(folder)]
    for found, (name, record) in zip(joined, expected, strict=True):
        assert (found.id, found.group, found.reward) == (f"{name}/{record.id}", record.group, record.reward)
        assert found.prompt_ids.tolist() == record.prompt_ids.tolist()
        assert found.reply_ids.tolist() == record.reply_ids.tolist()
    assert len({record.id for record in joined}) == 9
    assert joined.meta["joined"] == {"one": 3, "two": 3, "three": 3}
    assert joined.meta["tokenizer"] == "t"
    assert "seed" not in joined.meta  # which differs


def test_a_set_that_is_there_is_replaced(tmp_path: Path) -> None:
    one = write(tmp_path / "1", 0)
    join_sets(tmp_path / "joined", {"a": one, "b": one})
    assert join_sets(tmp_path / "joined", {"a": one}) == len(read_records(tmp_path / "joined")) == 3


@pytest.mark.parametrize("name", ["tokenizer", "markup", "record_prompt"])
def test_sets_of_another_tokenizer_or_form_of_prompt_are_refused(name: str, tmp_path: Path) -> None:
    sets = {"a": write(tmp_path / "1", 0), "b": write(tmp_path / "2", 0, **{name: "another"})}
    with pytest.raises(ValueError, match=f"1 and .*2 differ in their {name}"):
        join_sets(tmp_path / "joined", sets)
    assert not (tmp_path / "joined").exists()
