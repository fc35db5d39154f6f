"""A file that one run at a time adds to."""

from pathlib import Path

import pytest

from sia_jax.runs.journal import Journal, place_in


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


def test_a_run_from_before_a_sampling_number_goes_on_where_that_is_off(tmp_path: Path) -> None:
    old = {"seed": 1, "temperature": 0.7, "top_k": 5}
    path = tmp_path / "j.jsonl"
    with Journal(path, old, lambda record: record["n"]) as one:
        one.write({"n": 1})
    assert Journal(path, old | {"min_p": 0.0}, lambda record: record["n"]).done == {1}
    with pytest.raises(ValueError, match=r"other settings: min_p 0\.0 \(now 0\.1\)"):
        Journal(path, old | {"min_p": 0.1}, lambda record: record["n"])


def test_a_setting_that_may_vary_is_left_to_the_key_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, {"seed": 1, "file": "a"}, lambda record: record["n"]) as one:
        one.write({"n": 1})
    later = {"seed": 1, "file": "b"}
    assert Journal(path, later, lambda record: record["n"], varying=("file",)).done == {1}
    with pytest.raises(ValueError, match=r"other settings: file 'a' \(now 'b'\)"):
        Journal(path, later, lambda record: record["n"])
    with pytest.raises(ValueError, match=r"other settings: seed 1 \(now 2\)"):
        Journal(path, later | {"seed": 2}, lambda record: record["n"], varying=("file",))


WHOLE = b'{"n": 1, "settings": {"seed": 1}}\n'


@pytest.mark.parametrize("torn", [b"{", b'{"', b'{"n": 2, "settings": {"se', WHOLE[:-1], b'{"n": "\xe2\x82'])
def test_a_line_that_a_crash_has_cut_is_dropped(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(WHOLE + torn)
    with journal(path) as one:
        assert one.done == {1}
        one.write({"n": 2})
    assert journal(path).done == {1, 2}


@pytest.mark.parametrize(
    "content",
    [
        b"a note without an end of line",
        b'{"prompt": "a"}',
        b"[1, 2]",
        b'"text"',
        WHOLE + b"a note",
        b"\xff\xfe{",
    ],
)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_file_that_is_no_journal_is_refused_and_stays_as_it_is(
    tmp_path: Path, content: bytes, end: bytes
) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(content + end)
    with pytest.raises(ValueError, match=r"j\.jsonl, line \d.*name another file, or pass --overwrite"):
        journal(path)
    assert path.read_bytes() == content + end


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"settings": {"seed": 1}}', "no 'n' in it"),
        (b'{"n": 1.5, "settings": {"seed": 1}}', "n must be a whole number from 0 on, got 1.5"),
        (b'{"n": -1, "settings": {"seed": 1}}', "n must be a whole number from 0 on, got -1"),
        (b'{"n": true, "settings": {"seed": 1}}', "n must be a whole number from 0 on, got True"),
        (b'{"n": [1], "settings": {"seed": 1}}', "n must be a whole number from 0 on"),
        (b'{"n": 1, "n": 2, "settings": {"seed": 1}}', "the fields 'n' stand there twice"),
        (b'{"n": NaN, "settings": {"seed": 1}}', "NaN is not a finite number"),
        (b'{"n": 1, "settings": {"seed": "\\ud83d"}}', "half a surrogate pair"),
        (b'{"n": 1, "settings": [1]}', "this is no record of such a run"),
        (b'{"n": 1, "settings": {"seed": 2}}', r"other settings: seed 2 \(now 1\)"),
        (b"[" * 5000, "nested more than 100 deep"),
    ],
)
def test_records_of_no_such_run_are_refused_by_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(WHOLE + line + b"\n")
    with pytest.raises(ValueError, match=rf"j\.jsonl, line 2.*{message}"):
        Journal(path, {"seed": 1}, lambda record: place_in(record, "n"))
