"""The command `sia`: what it lists is what there is, what it runs is what `python -m` runs."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sia_jax
from decode import trace
from decode.evaluate import Args as EvaluateArgs
from sia_jax import console
from sia_jax.runs import cli, programs
from train import value_model

ROOT = Path(__file__).parents[2]
PROGRAMS = programs.find_programs()


def modules(folder: str) -> dict[str, ast.Module]:
    return {
        f"{folder}.{path.stem}": ast.parse(path.read_text())
        for path in (ROOT / folder).glob("*.py")
        if path.stem != "__main__"
    }


@pytest.mark.parametrize("folder", programs.FOLDERS)
def test_every_module_that_can_be_run_is_listed(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    runnable = {name for name, tree in modules(folder).items() if "__main__" in ast.dump(tree)}
    assert runnable == {one.module for one in PROGRAMS if one.folder == folder}
    console.main(["--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for one in PROGRAMS:
        assert any(line.startswith(programs.invocation(one.module) + " ") for line in lines)


def test_each_program_ends_as_the_command_starts_it() -> None:
    for folder in programs.FOLDERS:
        for name, tree in modules(folder).items():
            if "__main__" in ast.dump(tree):
                (last,) = tree.body[-1].body
                default = "default=ARGS, " if folder == "configs" else ""
                assert ast.unparse(last) == f"main(read_options(Args, {default}description=__doc__))", name


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.module)
def test_a_program_has_a_summary_of_one_line(program: programs.Program) -> None:
    doc = ast.get_docstring(ast.parse((ROOT / (program.module.replace(".", "/") + ".py")).read_text()))
    assert doc is not None
    assert program.summary == doc.splitlines()[0]
    assert len(program.summary) > 10


@pytest.mark.parametrize(
    "words",
    [
        ["train", "value-model"],
        ["train", "value_model"],
        ["train.value_model"],
        ["train.value-model"],
    ],
)
def test_a_program_is_run_under_any_of_its_names(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[value_model.Args] = []
    monkeypatch.setattr(value_model, "main", ran.append)
    console.main([*words, "--data", "d", "--base", "b", "--out", "o", "--rank", "4"])
    assert ran == [value_model.Args(data=Path("d"), base="b", out=Path("o"), rank=4)]


@pytest.mark.parametrize("words", [["trace"], ["decode", "trace"], ["decode.trace"]])
def test_programs_of_decode_need_no_folder(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[trace.Args] = []
    monkeypatch.setattr(trace, "main", ran.append)
    console.main([*words, "replies.jsonl"])
    console.main(["trace", "replies.jsonl"], folder="decode")
    assert [args.replies for args in ran] == [Path("replies.jsonl")] * 2


def test_a_config_starts_from_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from configs import qwen3_4b

    ran: list[value_model.Args] = []
    monkeypatch.setattr(qwen3_4b, "main", ran.append)
    console.main(["configs", "qwen3-4b", "--rank", "4"])
    assert ran[0].base == qwen3_4b.ARGS.base
    assert (ran[0].rank, ran[0].remat) == (4, True)


def test_a_group_lists_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    console.main(["train"])
    alone = capsys.readouterr().out
    assert "train.value_model" in alone
    assert "decode.generate" not in alone
    for arguments in ([], ["--help"], ["help"]):
        console.main(arguments, folder="train")
        assert capsys.readouterr().out == alone


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    console.main(["--version"])
    assert capsys.readouterr().out == f"sia_jax {sia_jax.__version__}\n"


@given(data=st.data())
def test_a_slip_of_the_finger_is_answered_with_the_program_meant(data: st.DataObject) -> None:
    program = data.draw(st.sampled_from(PROGRAMS))
    name = " ".join(program.words)
    place = data.draw(st.integers(0, len(name) - 1).filter(lambda i: name[i] != " "))
    typed = (name[:place] + name[place + 1 :]).split()
    if tuple(typed) in {one.words for one in PROGRAMS}:
        return
    said = SimpleNamespace(err=[], write=None)
    said.write, said.flush = said.err.append, lambda: None
    before, sys.stderr = sys.stderr, said
    try:
        with pytest.raises(SystemExit) as caught:
            console.main(typed)
    finally:
        sys.stderr = before
    assert caught.value.code == 2
    assert programs.invocation(program.module) in "".join(said.err)


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["--frobnicate"], [""], ["train", "frobnicate"], ["configs."]]
)
def test_what_is_no_program_is_refused_with_status_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        console.main(words)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"there is no program {' '.join(words)!r}")


def test_programs_are_called_as_the_reader_called_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "python -m decode.trace a; python -m train.value_model b; python -m tests.x"
    assert programs.said(text) == text
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/sia", "trace"])
    assert programs.said(text) == "sia trace a; sia train value-model b; python -m tests.x"
    args = EvaluateArgs(policy="p", value="v", reward=("r",), prompts="q", thresholds="t", out="o")
    assert cli.command("decode.evaluate", args).startswith("sia evaluate --policy p")


def test_the_list_waits_for_no_large_library() -> None:
    code = (
        "import sys; from sia_jax.console import main; main([]); main(['--version'])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'jax', 'numpy', 'tyro', 'rich'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sia_jax"],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("module", ["sia_jax", "sia_jax.console"])
def test_the_command_is_there_under_both_names_of_its_module(module: str) -> None:
    command = [sys.executable, "-m", module, "frobnicate"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "there is no program 'frobnicate'\nall of them: sia --help\n"


def test_where_all_programs_are_listed_is_said_as_the_reader_called_this(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        console.main(["frobnicate"], folder="decode")
    assert capsys.readouterr().err.splitlines()[-1] == "all of them: python -m sia_jax --help"


def test_ctrl_c_while_a_program_is_imported_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(console.importlib, "import_module", interrupt)
    with pytest.raises(SystemExit) as end:
        console.main(["trace", "r.jsonl"])
    assert (end.value.code, capsys.readouterr().err) == (130, "\ninterrupted\n")


def test_public_names_are_there_and_no_others() -> None:
    assert set(sia_jax.__all__) <= set(dir(sia_jax))
    with pytest.raises(AttributeError, match="module 'sia_jax' has no attribute 'frobnicate'"):
        sia_jax.frobnicate  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'frobnicate'"):
        exec("from sia_jax import frobnicate")
    names: dict = {}
    exec("from sia_jax import *", names)
    assert names["sample"] is sia_jax.sample
