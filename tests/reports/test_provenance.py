"""Commits of a repository that is made for it."""

import os
import subprocess
from pathlib import Path

import pytest

from sia_jax.reports.provenance import UNKNOWN, head_commit, last_commit


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
