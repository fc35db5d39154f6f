"""What programs have compiled: the next process loads it, from a folder that may be moved or refused."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest

from sia_jax.runs import cli, compilation_cache
from sia_jax.runs.compilation_cache import LARGEST, VARIABLE, environment_key, keep_compiled

ROOT = Path(__file__).parents[2]
PROGRAM = """
import hashlib, json, sys
sys.argv[0] = "sia"
import jax
from sia_jax.models.passes import batch_logits
from sia_jax.runs.cli import program
from tests.support.checkpoints import random_tokens, tiny_policy

events, found = [], {}
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
with program("it"):
    policy = tiny_policy()
    logits = batch_logits(policy.params, random_tokens(policy.config, 2, 9), config=policy.config)
    found["logits"] = hashlib.sha256(logits.tobytes()).hexdigest()
found["hits"], found["misses"] = events.count("cache_hits"), events.count("cache_misses")
print(json.dumps(found | {"folder": jax.config.jax_compilation_cache_dir}))
"""


def run(**environment: str) -> tuple[dict[str, Any], str]:
    """What such a program found, and what it said."""
    kept = {name: x for name, x in os.environ.items() if not name.startswith(("JAX_", "XDG_"))}
    environment = {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | environment
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


def test_the_second_process_compiles_nothing_and_gives_the_same_numbers(tmp_path: Path) -> None:
    (first, _), (second, said), (off, _) = (
        run(**{VARIABLE: wish}) for wish in (str(tmp_path), str(tmp_path), "off")
    )
    assert first["folder"] == second["folder"] == str(tmp_path / environment_key())
    assert first["misses"] > 0 == first["hits"]
    assert second["hits"] == first["misses"]
    assert second["misses"] == 0
    assert said == ""
    assert first["logits"] == second["logits"] == off["logits"]
    assert off["folder"] is None
    assert off["hits"] == off["misses"] == 0


def test_a_folder_of_no_use_is_said_and_the_program_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found, said = run(**{VARIABLE: str(tmp_path / "file")})
    assert found["folder"] is None
    assert said.startswith("it: warning: what is compiled is not kept for the next time: ")
    assert said.count("\n") == 1


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """JAX's settings, which the tests change in this copy alone."""
    values = {
        "jax_compilation_cache_dir": None,
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_max_size": -1,
    }
    config = SimpleNamespace(values=values, update=values.__setitem__)
    monkeypatch.setattr(compilation_cache, "jax", SimpleNamespace(config=config))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return values


def test_the_cache_is_bounded_unless_its_user_has_bounded_it(settings: dict[str, Any]) -> None:
    keep_compiled()
    assert settings["jax_compilation_cache_max_size"] == LARGEST
    settings |= {"jax_compilation_cache_dir": None, "jax_compilation_cache_max_size": 10**6}
    keep_compiled()
    assert settings["jax_compilation_cache_max_size"] == 10**6


@pytest.mark.parametrize(
    ("name", "value"), [("jax_compilation_cache_dir", "/theirs"), ("jax_enable_compilation_cache", False)]
)
def test_what_the_user_has_set_for_jax_holds(
    name: str, value: object, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings[name] = value
    before = dict(settings)
    keep_compiled()
    assert settings == before
    assert list(tmp_path.iterdir()) == []


def test_without_a_wish_it_lies_in_the_users_caches(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    keep_compiled()
    folder = Path(settings["jax_compilation_cache_dir"])
    assert folder == tmp_path / "caches" / "sia_jax" / "compiled" / environment_key()
    assert folder.stat().st_mode & 0o077 == 0
    settings["jax_compilation_cache_dir"] = None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which its specification has one ignore
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    keep_compiled()
    assert settings["jax_compilation_cache_dir"].startswith(str(tmp_path / "home" / ".cache" / "sia_jax"))


def test_another_cpu_has_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = set()
    for flags in ("fpu sse2 avx2", "fpu sse2 avx2 avx512f"):
        first = f"processor\t: 0\nmodel name\t: it\nflags\t\t: {flags}\ncpu MHz\t: {len(names)}\n"
        (tmp_path / "cpuinfo").write_text(f"{first}\nprocessor\t: 1\n")
        monkeypatch.setattr(compilation_cache, "_CPUINFO", tmp_path / "cpuinfo")
        names.add(environment_key())
        assert len(compilation_cache._cpu()) == 2  # a clock that changes is no part of it
    monkeypatch.setattr(compilation_cache, "_CPUINFO", tmp_path / "missing")
    assert len(names | {environment_key()}) == 3


def test_what_a_killed_process_left_half_written_is_removed(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / environment_key()
    folder.mkdir()
    for name in ("whole-cache", "whole-atime", "half-cache"):
        (folder / name).touch()
    keep_compiled()
    assert {path.name for path in folder.glob("*-*")} == {"whole-cache", "whole-atime"}


def test_what_another_process_is_writing_stays(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation_cache, "_PATIENCE", 0.05)
    entry = tmp_path / environment_key() / "half-cache"
    entry.parent.mkdir()
    entry.touch()
    with filelock.FileLock(entry.parent / ".lockfile"):
        keep_compiled()
        assert entry.exists()
    assert settings["jax_compilation_cache_dir"] == str(entry.parent)
    settings["jax_compilation_cache_dir"] = None
    keep_compiled()
    assert not entry.exists()


def test_without_filelock_the_cache_is_unbounded_and_its_entries_stay(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation_cache.importlib.util, "find_spec", lambda name: None)
    entry = tmp_path / compilation_cache.environment_key() / "jit_f-0-cache"
    entry.parent.mkdir()
    entry.write_bytes(b"whole")
    os.utime(entry, (0, 0))
    keep_compiled()
    assert entry.exists()
    assert settings["jax_compilation_cache_max_size"] == -1


def test_folders_of_other_versions_go_once_they_are_long_unused(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    old = time.time() - 100 * 24 * 3600
    for name in ("jax-0.9.0-0123456789abcdef", "jax-0.9.1-0123456789abcdef", "jax-of-mine"):
        (tmp_path / name).mkdir()
        if "0.9.1" not in name:
            os.utime(tmp_path / name, (old, old))
    keep_compiled()
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"jax-0.9.1-0123456789abcdef", "jax-of-mine", environment_key()}


@pytest.mark.parametrize(("is_one", "keeps", "calls"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_only_a_program_that_does_not_time_its_compilation_switches_it_on(
    is_one: bool, keeps: bool, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(cli, "is_program", lambda: is_one)
    monkeypatch.setattr(compilation_cache, "keep_compiled", lambda: made.append(1))
    with cli.program("it", keeps_compiled=keeps):
        pass
    assert len(made) == calls
