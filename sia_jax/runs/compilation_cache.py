"""Where programs keep what XLA has compiled, for the next process to load: JAX's persistent cache.

It lies in ~/.cache/sia_jax/compiled, or below $XDG_CACHE_HOME; SIA_JAX_COMPILATION_CACHE names another
folder, or is "off". Where JAX's own setting is made (JAX_COMPILATION_CACHE_DIR), that holds. Only programs
switch it on: `import sia_jax` changes no setting of JAX.

What is loaded is run, so whoever may write to the folder may run code as its reader.
"""

import hashlib
import importlib
import importlib.util
import os
import platform
import shutil
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import jax

from sia_jax.costs.roofline import usable_cores

VARIABLE = "SIA_JAX_COMPILATION_CACHE"
LARGEST = 2**30
"""Bytes; what was used longest ago makes room."""
_UNUSED_DAYS = 60
_LOCK = ".lockfile"
"""What JAX locks while it reads or writes an entry."""
_PATIENCE = 10.0
"""Seconds that the lock is waited for, as JAX does."""
_CPUINFO = Path("/proc/cpuinfo")
_OF_THE_CPU = {
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "isa", "uarch"),
}


def keep_compiled() -> None:
    """Switch the cache on, if this process has none and none was refused; a folder of no use is a warning."""
    wish, settings = os.environ.get(VARIABLE, ""), jax.config.values
    if wish == "off" or settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return
    largest = settings["jax_compilation_cache_max_size"]
    if largest == -1 and importlib.util.find_spec("filelock"):  # which JAX asks for where it is to make room
        largest = LARGEST
    try:
        root = Path(wish) if wish else _default_root()
        folder = root / environment_key()
        _prepare(folder)
        if largest != -1:
            _remove_half_written(folder)
    except (OSError, RuntimeError) as error:  # the latter of a user who has no home
        warnings.warn(
            f"what is compiled is not kept for the next time: {error}; "
            f"{VARIABLE} names another folder, or is off",
            stacklevel=2,
        )
        return
    jax.config.update("jax_compilation_cache_max_size", largest)
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))


def environment_key() -> str:
    """The name of a folder whose programs run here: "jax-0.10.2-" and a digest of versions and CPU.

    JAX's key of a program has the versions, and not the CPU. A program that was compiled for another one may
    end in an illegal instruction, or use fewer cores than there are.
    """
    names = ("jax", "jaxlib")
    parts = [*(version(name) for name in names), platform.machine(), str(usable_cores()), *_cpu()]
    return f"jax-{version('jax')}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:16]}"


def _cpu() -> list[str]:
    """What tells the first processor from those of another kind."""
    try:
        first = _CPUINFO.read_text().partition("\n\n")[0]
    except OSError:
        return [platform.processor(), platform.node()]
    return [line for line in first.splitlines() if line.partition(":")[0].strip() in _OF_THE_CPU]


def _default_root() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(caches) if os.path.isabs(caches) else Path.home() / ".cache") / "sia_jax" / "compiled"


def _prepare(folder: Path) -> None:
    """Make the folder, see that it can be written to, and take away what nobody will load.

    Raises:
      OSError: it cannot.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder):  # which root may make where others may not
        os.utime(folder)
    now = time.time()
    for other in folder.parent.glob("jax-*-????????????????"):
        if now - other.stat().st_mtime > _UNUSED_DAYS * 24 * 3600:
            shutil.rmtree(other, ignore_errors=True)


def _remove_half_written(folder: Path) -> None:
    """Take away entries without the file beside them that says when they were used.

    JAX writes an entry and then its "-atime", in a bounded cache alone, and holds a lock meanwhile. A process
    that is killed before that leaves an entry that may be cut short, and at which the search for the oldest
    fails. It has to go before the program is looked up again: that would write the "-atime", and the entry
    would be taken for whole ever after.
    """
    filelock = importlib.import_module("filelock")
    try:
        with filelock.FileLock(folder / _LOCK, timeout=_PATIENCE):  # of who is dead it is free
            for entry in folder.glob("*-cache"):
                whole = entry.with_name(entry.name.removesuffix("-cache") + "-atime")
                if not whole.exists():
                    entry.unlink(missing_ok=True)
    except filelock.Timeout:
        return  # somebody writes and writes; the next start will look
