"""A file that one run at a time adds to."""

from pathlib import Path

import pytest

from sia_jax.reports.journal import Journal


def journal(path: Path, **options: bool) -> Journal:
    return Journal(path, {"seed": 1}, lambda record: record["n"], **options)


def test_a_second_run_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    first, second = (journal(tmp_path / "j.jsonl") for _ in range(2))
    with first:
        first.write({"n": 1})
        with pytest.raises(ValueError, match="another run is writing it; wait for its end"), second:
            raise AssertionError
        first.write({"n": 2})
    assert journal(tmp_path / "j.jsonl").done == {1, 2}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_another_run_has_written_meanwhile_is_not_cut_off(tmp_path: Path, overwrite: bool) -> None:
    """While the models were loaded, say."""
    late = journal(tmp_path / "j.jsonl", overwrite=overwrite)
    with journal(tmp_path / "j.jsonl") as quick:
        quick.write({"n": 1})
    with pytest.raises(ValueError, match="another run has written it meanwhile; start this one again"), late:
        raise AssertionError
    assert not late.begun
    assert journal(tmp_path / "j.jsonl").done == {1}


def test_a_run_may_begin_anew_and_go_on(tmp_path: Path) -> None:
    with journal(tmp_path / "j.jsonl") as one:
        one.write({"n": 1})
    with journal(tmp_path / "j.jsonl", overwrite=True) as two:
        assert two.begun
        two.write({"n": 2})
    with journal(tmp_path / "j.jsonl") as three:
        three.write({"n": 3})
    assert journal(tmp_path / "j.jsonl").done == {2, 3}
