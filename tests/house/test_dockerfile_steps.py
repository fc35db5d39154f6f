"""Our reader of Dockerfiles, and what it makes of steps: nothing is guessed or leaves the folder."""

import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.docker.image import Image
from tests.support.dockerfile import commands, ignored, parse, sent, substituted

ROOT = Path(__file__).parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_lines_that_go_on_are_one_instruction_and_comments_none() -> None:
    text = """# a remark
FROM python:3.11-slim

run pip install \\
  # why
  a \\

  b
CMD []
"""
    assert [(one.word, one.rest, one.line) for one in parse(text)] == [
        ("FROM", "python:3.11-slim", 2),
        ("RUN", "pip install a b", 4),
        ("CMD", "[]", 9),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM a\nADD b c", "line 2: ADD is not known"),
        ("FROM a\nCOPY --from=b c d", "line 2: expected COPY without flags"),
        ("FROM a\nRUN --mount=type=cache pip", "line 2: expected RUN without flags"),
        ("FROM a\nRUN <<END\nx\nEND", "line 2: expected no text"),
        ("FROM a\nFROM b", "expected FROM once"),
        ("ARG a\nFROM b", "expected FROM once, and first"),
        ("", "expected FROM once"),
        ("# escape=`\nFROM a", "line 1: expected no parser directive"),
        ("FROM a\nRUN b \\\n", "line 2: it goes on"),
        ("FROM a\nRUN", "line 2: RUN of nothing"),
    ],
)
def test_what_is_not_known_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="^" + said):
        parse(text)


def test_a_run_is_commands_whose_words_are_the_shells() -> None:
    found = commands('pip install ".[serve]" "jax[${JAX}]" && rm -rf /build', {"JAX": "cpu"})
    assert found == [["pip", "install", ".[serve]", "jax[cpu]"], ["rm", "-rf", "/build"]]


@pytest.mark.parametrize(
    "text", ["a | b", "a > b", "a; b", "a &&", "rm *", "a $(b)", "a `b`", "a || b", "a $"]
)
def test_more_of_the_shell_than_that_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|of nothing"):
        commands(text, {})


def test_a_variable_that_there_is_not_is_refused() -> None:
    assert substituted("$A/${B}c", {"A": "1", "B": "2"}) == "1/2c"
    for text in ("$C", "${A:-2}", "$$", "a$"):
        with pytest.raises(ValueError, match=r"there is no C|expected"):
            substituted(text, {"A": "1"})


@pytest.mark.parametrize(
    ("rules", "path", "out"),
    [
        ("*", "a", True),
        ("*", "a/b/c", True),
        ("* !a", "a/b/c", False),
        ("* !a", "ab", True),
        ("* !a **/x", "a/x/b", True),
        ("* !a **/x", "a/b/x", True),
        ("* !a **/x", "a/b/xy", False),
        ("**/x !a", "a/x", False),
        ("a/*.py", "a/b.py", True),
        ("a/*.py", "a/b/c.py", False),
        ("*.py", "a/b.py", False),
        ("a?", "ab", True),
        ("/a/", "a", True),
    ],
)
def test_the_last_rule_about_a_path_or_its_folders_decides(rules: str, path: str, out: bool) -> None:
    assert ignored(Path(path), rules.split()) is out


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """Whose Python is none, with a context of three files; what pip would be called with is not run."""
    context = tmp_path / "context"
    for name in ("a.txt", "lib/b.py", "lib/deep/c.py", "lib/__pycache__/c.pyc", ".git/config"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(name)
    (context / ".dockerignore").write_text("*\n!a.txt\n!lib\n**/__pycache__\n")
    (tmp_path / "root").mkdir()
    found = Image(context, tmp_path / "root", Path(sys.executable))
    run = "tests.docker.image.subprocess.run"
    real = __import__("subprocess").run

    def stub(words, **options):
        return real(words, **options) if "-c" in map(str, words) else calls.append((words, options))

    calls: list = []
    monkeypatch.setattr(run, stub)
    found.calls = calls  # type: ignore[attr-defined]
    return found


def built(image: Image, text: str, **arguments: str) -> list[str]:
    """The paths of what it has made, after FROM."""
    (image.context / "Dockerfile").write_text(f"FROM python:{VERSION}-slim\n{text}\n")
    image.build(arguments, lambda line: None)
    return sorted(str(path.relative_to(image.root)) for path in image.root.rglob("*"))


def test_what_is_sent_is_what_the_rules_let_through(image: Image) -> None:
    assert [str(path) for path in sent(image.context)] == ["a.txt", "lib/b.py", "lib/deep/c.py"]


def test_files_are_copied_under_their_names_and_of_folders_what_they_hold(image: Image) -> None:
    found = built(image, "WORKDIR /build\nCOPY a.txt ./\nCOPY lib ./other")
    assert found == [
        *("build", "build/a.txt", "build/other", "build/other/b.py", "build/other/deep"),
        "build/other/deep/c.py",
    ]


def test_folders_users_variables_and_commands_are_kept(image: Image) -> None:
    text = """ARG JAX=cpu
WORKDIR /build
COPY a.txt ./
RUN pip install "jax[${JAX}]" && rm -rf /build
WORKDIR /
RUN useradd --create-home --uid 10001 sia && install -d -o sia -g sia /home/sia/kept
USER sia
WORKDIR /home/sia
ENV HERE=/home/sia/kept OTHER=a
EXPOSE 8000
HEALTHCHECK --interval=1s CMD ["python", "-c", "1"]
ENTRYPOINT ["sia"]
CMD ["a"]"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.docker.image.os.getuid", lambda: 1)
        assert built(image, text, JAX="tpu") == ["home", "home/sia", "home/sia/kept"]
    (venv, _), (pip, options) = image.calls  # type: ignore[attr-defined]
    assert list(map(str, venv[1:])) == ["-m", "venv", "--copies", str(image.root / "usr/local")]
    assert pip[1:] == ["-m", "pip", "install", "jax[tpu]"]
    assert options["cwd"] == image.root / "build"
    assert image.home == image.root / "home/sia"
    assert image.folder == PurePosixPath("/home/sia")
    assert image.environment == {"HERE": "/home/sia/kept", "OTHER": "a"}
    assert (image.health, image.entrypoint, image.command) == (["python", "-c", "1"], ["sia"], ["a"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RUN apt-get install x", "line 2: expected pip, rm, install or useradd, got 'apt-get'"),
        ("RUN rm -rf /../outside", "line 2: .* expected a path of the image"),
        ("RUN rm -rf /", "line 2: expected to remove less than all"),
        ("RUN rm -rf ../context", "line 2: .* expected a path of the image"),
        ("COPY .git ./", "line 2: .git: nothing of it is sent"),
        ("COPY nowhere ./", "line 2: nowhere: nothing of it is sent"),
        ("COPY a.txt /../../outside/", "line 2: .* expected a path of the image"),
        ("WORKDIR /build\nRUN rm -rf /build\nRUN pip install x", "line 4: the working folder /build is gone"),
        ("USER nobody", r"line 2: expected one of the users \[\], got 'nobody'"),
        ("RUN install -d -o sia -g sia /home", r"line 2: expected one of the users \[\], got 'sia'"),
        ("RUN install -m 700 a /b", "line 2: expected install -d -o USER -g USER FOLDER"),
        ("RUN useradd -m sia", "line 2: expected useradd --create-home --uid NUMBER NAME"),
        ("ENV A B", "line 2: expected NAME=VALUE"),
        ("CMD sia serve", "line 2: expected a list of words in JSON"),
    ],
)
def test_a_step_that_cannot_be_carried_out_is_refused(image: Image, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        built(image, text)
    assert (image.context / "a.txt").exists()


def test_a_build_has_the_arguments_that_the_file_has_and_the_interpreter_that_it_names(image: Image) -> None:
    with pytest.raises(ValueError, match=r"expected arguments that the Dockerfile has, got \['KIND'\]"):
        built(image, "ARG JAX=cpu", KIND="tpu")
    (image.context / "Dockerfile").write_text("FROM python:2.7-slim\n")
    with pytest.raises(ValueError, match=f"interpreter of python:2.7-slim, got Python {VERSION}"):
        image.build({}, lambda line: None)


def test_what_runs_in_an_image_has_its_variables_and_none_of_ours(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "1")
    built(image, "WORKDIR /home\nENV KEPT=/home/kept NAME=a")
    (image.venv / "bin").mkdir(parents=True)
    shutil.copy("/usr/bin/env", image.venv / "bin/env")
    with image.start(["env"], own_user=False, variables={"MORE": "b"}) as process:
        out, _ = process.communicate(timeout=20)
    found = dict(line.split("=", 1) for line in out.splitlines())
    assert found.keys() == {"PATH", "HOME", "LANG", "KEPT", "NAME", "MORE"}
    assert found["KEPT"] == str(image.root / "home/kept")
    assert found["HOME"] == str(image.root / "root")
