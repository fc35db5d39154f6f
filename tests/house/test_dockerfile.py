"""The steps of the Dockerfile are held against the repository, for there may be no Docker to run them."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from decode import serve
from sia_jax.runs.cli import read_options
from sia_jax.runs.programs import FOLDERS, find_programs
from sia_jax.serve.lifecycle import is_loopback
from sia_jax.serve.settings import State
from tests.support.dockerfile import commands, ignored, parse, rules_of, sent
from tests.support.tiny_app import TinyService, running
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


def steps() -> list[tuple[str, str]]:
    """Its instructions in order: (word, the rest)."""
    return [(one.word, one.rest) for one in parse((ROOT / "Dockerfile").read_text())]


def only(word: str) -> str:
    (found,) = (rest for own, rest in steps() if own == word)
    return found


def copied() -> list[str]:
    sources: list[str] = []
    for word, rest in steps():
        if word == "COPY":
            *own, target = rest.split()
            assert target in ("./", f"./{own[0]}"), "what is a folder here is the same folder there"
            sources += own
    return sources


def test_what_it_copies_is_there_before_anything_is_run() -> None:
    words = [word for word, _ in steps()]
    assert max(k for k, w in enumerate(words) if w == "COPY") < min(
        k for k, w in enumerate(words) if w == "RUN"
    )


def test_what_it_copies_is_there_and_all_that_an_installation_is_made_of() -> None:
    sources = copied()
    for source in sources:
        assert (ROOT / source).exists(), source
    # What tests/house/test_installed.py builds a wheel of, which holds everything that runs.
    built = {"pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "sia_jax", *FOLDERS}
    assert set(sources) == built | {"constraints.txt"}
    assert len(sources) == len(set(sources))


def test_what_it_copies_and_no_more_is_sent_to_docker() -> None:
    found = {path.as_posix() for path in sent(ROOT)}
    for path in (
        "sia_jax/serve/__pycache__/app.pyc",
        "decode/__pycache__/serve.pyc",
        ".git/config",
        "keys.txt",
    ):
        assert ignored(Path(path), rules_of(ROOT)), path
    assert {path.partition("/")[0] for path in found} == set(copied())
    code = {path.as_posix() for folder in ("sia_jax", *FOLDERS) for path in (ROOT / folder).rglob("*.py")}
    code = {path.removeprefix(f"{ROOT.as_posix()}/") for path in code}
    assert code == {path for path in found if path.endswith(".py")} - {"setup.py"}


def test_it_installs_extras_that_there_are_with_the_versions_that_are_tested() -> None:
    (install,) = (rest for word, rest in steps() if word == "RUN" and "pip install" in rest)
    words = shlex.split(install.split("&&")[0])
    assert words[:2] == ["pip", "install"]
    assert words[words.index("-c") + 1] == "constraints.txt"
    (own,) = re.findall(r"^\.\[(.*)\]$", "\n".join(words), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(own.split(",")) <= set(project["optional-dependencies"])
    assert "jax[${JAX}]" in words
    python = re.fullmatch(r"python:(3\.\d+)-slim", only("FROM"))
    assert python is not None
    assert python[1] == "3.11", "of which constraints.txt has the versions"


def test_every_kind_of_jax_that_it_names_is_one() -> None:
    assert only("ARG") == "JAX=cpu"
    said = re.findall(r"JAX=(\w+)", (ROOT / "Dockerfile").read_text())
    said += re.findall(r"JAX=(\w+)", (ROOT / "docs/serving.md").read_text())
    extras = importlib.metadata.metadata("jax").get_all("Provides-Extra") or []
    assert {"cpu", "cuda12", "tpu"} <= set(said) <= set(extras)


def test_what_it_runs_are_options_that_the_server_takes() -> None:
    words = json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))
    called = {("sia", *one.words): one.module for one in find_programs()}
    assert called[tuple(words[:2])] == "decode.serve"
    args = read_options(serve.Args, words[2:])
    assert not is_loopback(args.host), "nobody outside would reach it"
    assert str(args.port) == only("EXPOSE")
    assert (args.keys, args.open) == (None, False), "without keys it starts only when it is told to"


def test_what_runs_is_not_root() -> None:
    words = [word for word, _ in steps()]
    user = only("USER")
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert not any(word == "RUN" for word in words[words.index("USER") :])
    made, folders = next(commands(rest, {}) for word, rest in steps() if word == "RUN" and "useradd" in rest)
    assert made[-1] == user != "root"
    # They are the user's before a volume is mounted on one, which takes the owner of what was there.
    assert folders[:6] == ["install", "-d", "-o", user, "-g", user]
    assert set(folders[6:]) == {pair.split("=")[1] for pair in only("ENV").split()}
    assert all(path.startswith(f"/home/{user}/") for path in folders[6:])


@pytest.mark.parametrize("state", [State.READY, State.DRAINING])
def test_the_check_of_its_health_passes_only_when_the_server_is_ready(state: State) -> None:
    options, _, command = only("HEALTHCHECK").partition(" CMD ")
    assert all(option.startswith("--") for option in options.split())
    python, dash, code = json.loads(command)
    assert (python, dash) == ("python", "-c")
    assert f":{only('EXPOSE')}/health" in code
    service = TinyService()
    with running(service) as server:
        wait_until(lambda: service.state == State.READY)
        service.state = state
        own = code.replace(f":{only('EXPOSE')}/", f":{server.port}/")
        done = subprocess.run([sys.executable, "-c", own], capture_output=True, timeout=20, check=False)
    assert done.returncode == (0 if state == State.READY else 1)
