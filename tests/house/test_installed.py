"""What an installation puts where, and that it works beside a clone, whose folder has the package's name."""

import configparser
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sia_jax.runs.programs import FOLDERS, find_programs

ROOT = Path(__file__).parents[2]

BUILD = """
import setuptools.build_meta as backend, sys
print(getattr(backend, "build_" + sys.argv[1])(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources in a folder called sia_jax, as git would lay it."""
    folder = tmp_path_factory.mktemp("work") / "sia_jax"
    folder.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("sia_jax", *FOLDERS):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    # What a build of another day has left.
    (folder / "build/lib/decode").mkdir(parents=True)
    (folder / "build/lib/decode/old.py").touch()
    return folder


@pytest.fixture(scope="module")
def built(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A distribution of that copy: "wheel", "editable" or "sdist"."""

    def build(kind: str) -> Path:
        out = tmp_path_factory.mktemp(kind)
        subprocess.run(
            [sys.executable, "-c", BUILD, kind, str(out)],
            cwd=clone,
            check=True,
            capture_output=True,
            text=True,
        )
        (path,) = out.iterdir()
        return path

    return build


@pytest.fixture(scope="module")
def wheel(built: Callable[[str], Path]) -> Path:
    return built("wheel")


def unpacked(path: Path, site: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(site)
    return site


def python(site: Path, folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code where `site` is the folder of installed packages, and this one's are there without its own.

    -S leaves out the .pth files of this environment, which would bring in the checkout.
    """
    start = (
        "import site, sys\n"
        "sys.path.insert(0, '')\n"
        f"site.addsitedir({str(site)!r})\n"
        f"sys.path.append({sysconfig.get_path('purelib')!r})\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_beside_the_clone_an_editable_install_is_the_package(
    clone: Path, built: Callable[[str], Path], tmp_path: Path
) -> None:
    site = unpacked(built("editable"), tmp_path)
    code = (
        "import sia_jax, decode.generate, train.value_model, configs\n"
        "print(sia_jax.__file__)\n"
        "print(sia_jax.load_policy.__module__)\n"
        "print(decode.__file__)\n"
    )
    for folder in (clone.parent, clone, tmp_path):
        done = python(site, folder, code)
        assert done.stdout.splitlines() == [
            str(clone / "sia_jax/__init__.py"),
            "sia_jax.checkpoints.huggingface",
            str(clone / "decode/__init__.py"),
        ], done.stderr


def test_a_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        top = {name.split("/")[0] for name in names}
        (info,) = top - {"sia_jax"}
        assert info.endswith(".dist-info")
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{info}/entry_points.txt").decode())
    assert {name: dict(scripts[name]) for name in scripts.sections()} == {
        "console_scripts": {"sia": "sia_jax.console:main"}
    }
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "sia_jax").rglob("*.py")}
    for folder in FOLDERS:
        modules |= {f"sia_jax/programs/{folder}/{path.name}" for path in (ROOT / folder).glob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    for folder in ("sia_jax/world/models", "sia_jax/serve/page"):
        data = (path for path in (ROOT / folder).rglob("*") if path.is_file())
        assert {str(path.relative_to(ROOT)) for path in data} <= set(names)


def test_a_wheel_runs_its_programs(wheel: Path, clone: Path, tmp_path: Path) -> None:
    site = unpacked(wheel, tmp_path / "site")
    code = "from sia_jax.console import main; main()"
    # Beside the clone, whose folder is called sia_jax too.
    listed = python(site, clone.parent, code)
    calls = {" ".join(("sia", *one.words)) for one in find_programs()}
    assert all(f"  {call} " in listed.stdout for call in calls), listed.stderr
    traced = python(site, clone.parent, code, "trace", "nowhere.jsonl")
    assert traced.stderr.startswith("decode.trace: nowhere.jsonl: no such file")
    assert traced.returncode == 1
    shown = python(site, tmp_path, code, "configs", "qwen3-4b", "--help")
    assert "sia configs qwen3-4b --data" in shown.stdout, shown.stderr
    assert "python -m" not in shown.stdout


def test_a_source_archive_holds_what_the_wheel_is_made_of(
    built: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.unpack_archive(built("sdist"), tmp_path)
    (root,) = tmp_path.iterdir()
    data = ("sia_jax/world/card.md", "sia_jax/reports/trace.html", "sia_jax/serve/page/page.js")
    for name in ("setup.py", "pyproject.toml", *data):
        assert (root / name).is_file()
    for name in FOLDERS:
        assert {p.name for p in (root / name).glob("*.py")} == {p.name for p in (ROOT / name).glob("*.py")}
