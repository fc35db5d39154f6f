"""From which commit something was made, and on what."""

import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

import sia_jax
from sia_jax.costs.roofline import DeviceRates, usable_cores
from sia_jax.models.config import ModelConfig

UNKNOWN = "unknown"

PACKAGE = Path(__file__).parents[1]
"""The folder of sia_jax, wherever a program is started."""


def head_commit(ignored: Sequence[str | Path] = (), folder: Path | None = None) -> str:
    """The commit that is checked out, with "+changes" if files differ from it.

    "unknown" without git, and where git knows no file of the folder: a package that is installed inside a
    repository of something else is of none of its commits.

    Args:
      ignored: paths, from the folder or absolute, whose changes do not count, such as what the run itself has
        written.
      folder: whose repository is asked; None: the package's.
    """
    folder = folder or PACKAGE
    head = _git("rev-parse", "--short=12", "HEAD", folder=folder)
    if not head or not _git("ls-files", "--", ".", folder=folder):
        return UNKNOWN
    # Only what git knows: a run's own results are untracked, and change nothing that is measured.
    top = Path(_git("rev-parse", "--show-toplevel", folder=folder))
    others = (":/", *(f":(top,exclude,literal){path}" for path in _within(ignored, top, folder)))
    dirty = _git("status", "--porcelain", "--untracked-files=no", "--", *others, folder=folder)
    return head + ("+changes" if dirty else "")


def last_commit(paths: Sequence[Path], folder: Path | None = None) -> str:
    """The last commit that changed any of some files, with its date; "+changes" if they differ from it.

    Args:
      paths: files or folders.
      folder: where to ask; None: the package's.
    """
    folder, names = folder or PACKAGE, [str(path) for path in paths]
    found = _git("log", "-1", "--format=%h of %cs", "--abbrev=12", "--", *names, folder=folder)
    if not found:
        return UNKNOWN
    return found + ("+changes" if _git("status", "--porcelain", "--", *names, folder=folder) else "")


def software() -> str:
    """What this process is: 'commit 0123456789ab, jax 0.10.2, flax 0.12.8, optax 0.2.8'."""
    versions = (f"{name} {version(name)}" for name in ("jax", "flax", "optax"))
    return ", ".join((f"commit `{head_commit()}`", *versions))


def record_header(shape: str, config: ModelConfig, rates: DeviceRates, out: Path) -> dict[str, Any]:
    """What every record of a benchmark says of its run; `out` is the folder of the records."""
    return {
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        # What an earlier part of the run has written is no change of what is measured.
        "commit": head_commit(ignored=(out.absolute(), out.with_suffix(".md").absolute())),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax")},
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "device": f"{jax.devices()[0].device_kind}, {usable_cores()} cores",
        "bandwidth_gb_per_s": rates.bytes_per_second / 1e9,
        "peak_gflop_per_s": rates.flops_per_second / 1e9,
        "shape": shape,
        "config": asdict(config),
    }


def host_description() -> str:
    """What this process computes on and with: 'cpu, 2 cores, Python 3.11.7, jax 0.10.2'."""
    device = f"{jax.devices()[0].device_kind}, {usable_cores()} cores"
    return f"{device}, Python {platform.python_version()}, jax {version('jax')}"


def made_here(**more: Any) -> dict[str, Any]:
    """What bits depend on in any program: the device and the versions; and what the program adds."""
    device = jax.devices()[0]
    return {
        **more,
        "device": f"{device.platform} {device.device_kind}",
        "jax": jax.__version__,
        "sia_jax": sia_jax.__version__,
    }


def _git(*command: str, folder: Path) -> str:
    """What a git command prints; "" if there is no git or no repository."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=True, cwd=folder)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _within(paths: Sequence[str | Path], top: Path, folder: Path) -> Iterator[Path]:
    """Those in a repository, from its top: git refuses others. What holds the folder itself is none."""
    for path in paths:
        real = (folder / path).resolve()
        if real.is_relative_to(top) and not folder.resolve().is_relative_to(real):
            yield real.relative_to(top)
