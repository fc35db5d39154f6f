"""Commits of a repository that is made for it."""

import os
import subprocess
from pathlib import Path

import pytest

from sia_jax.runs import provenance
from sia_jax.runs.provenance import UNKNOWN, head_commit, last_commit


def git(folder: Path, *command: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_other_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that a git hook names, nor one around the temporary folder."""
    for name in os.environ:
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def test_commits_and_changes(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    commits = []
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        git(tmp_path, "add", name)
        git(tmp_path, "commit", "--quiet", "-m", name)
        commits.append(git(tmp_path, "rev-parse", "--short=12", "HEAD"))
    assert head_commit(folder=tmp_path) == commits[1]
    assert last_commit([Path("a")], tmp_path).startswith(f"{commits[0]} of 2")
    assert last_commit([Path("a"), Path("b")], tmp_path).startswith(commits[1])
    (tmp_path / "a").write_text("changed")
    (tmp_path / "c").write_text("not known to git")
    assert head_commit(folder=tmp_path) == f"{commits[1]}+changes"
    assert head_commit(["a"], tmp_path) == commits[1]
    assert last_commit([Path("a")], tmp_path).endswith("+changes")
    assert not last_commit([Path("b")], tmp_path).endswith("+changes")


def test_without_a_repository_nobody_knows(tmp_path: Path) -> None:
    assert head_commit(folder=tmp_path) == UNKNOWN
    assert last_commit([Path("a")], tmp_path) == UNKNOWN


def test_the_commit_is_the_package_s_wherever_a_program_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a run writes, inside the repository or not, changes nothing but itself."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder, name in ((mine, "docs/page.md"), (theirs, "package/code")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(name)
        git(folder, "init", "--quiet")
        git(folder, "add", name)
        git(folder, "commit", "--quiet", "-m", "one")
    package = theirs / "package"
    monkeypatch.setattr(provenance, "PACKAGE", package)
    monkeypatch.chdir(mine)
    own = git(theirs, "rev-parse", "--short=12", "HEAD")
    assert head_commit() == own
    (mine / "docs" / "page.md").write_text("changed")
    assert head_commit(ignored=(Path("docs").absolute(),)) == own
    (theirs / "docs").mkdir()
    (theirs / "docs" / "page.md").write_text("page")
    git(theirs, "add", "docs")
    assert head_commit() == f"{own}+changes"
    assert head_commit(ignored=(theirs / "docs",)) == own
    (package / "code").write_text("changed")
    for ignored in ((theirs / "docs", mine / "docs"), (theirs, theirs / "docs")):
        assert head_commit(ignored=ignored) == f"{own}+changes"


def test_a_package_that_is_installed_in_another_repository_is_of_none_of_its_commits(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "package").mkdir(parents=True)
    (tmp_path / ".venv" / "package" / "code").write_text("code")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    assert head_commit(folder=tmp_path) != UNKNOWN
    assert head_commit(folder=tmp_path / ".venv" / "package") == UNKNOWN
