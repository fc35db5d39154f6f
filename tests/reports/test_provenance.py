"""A result's commit: which one, and whether files differed from it."""

import subprocess
from pathlib import Path

import pytest

from sia_jax.reports.provenance import commit, last_change


def git(*arguments: str) -> str:
    name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(
        ["git", *name, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")
        git("add", name)
        git("commit", "-qm", name)
    return tmp_path


def test_the_commit_is_that_of_the_working_folder(repository):
    assert commit() == git("rev-parse", "--short=12", "HEAD")


def test_changed_and_new_files_show_unless_they_are_ignored(repository):
    clean = commit()
    (repository / "a").write_text("2")
    assert commit() == clean + "+changes"
    assert commit(ignored=["a"]) == clean
    (repository / "new").write_text("3")
    assert commit(ignored=["a"]) == clean + "+changes"


def test_a_file_has_the_commit_that_changed_it_last(repository):
    assert last_change("a") == git("rev-parse", "--short=12", "HEAD~1")
    assert last_change("a", "b") == commit()


def test_without_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() == last_change("a") == "unknown"
