"""The programs of decode/, train/ and configs/: where they lie, and what they are called.

A program is a module of these folders that ends in `main(read_options(Args, description=__doc__))`.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDERS = {
    "decode": "Generate, and measure:",
    "train": "Prepare data, and train:",
    "configs": "Runs of the paper:",
}
"""What the programs of a folder are for. Those of decode are called by their names alone."""
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Program:
    """One that can be run."""

    module: str
    """train.value_model."""
    summary: str
    """The first line of its docstring."""

    @property
    def folder(self) -> str:
        """Where it lies: train."""
        return self.module.split(".")[0]

    @property
    def words(self) -> tuple[str, ...]:
        """What follows `sia`: ("train", "value-model")."""
        folder, name = self.module.replace("_", "-").split(".")
        return (name,) if folder == "decode" else (folder, name)

    def names(self, folder: str | None = None) -> set[tuple[str, ...]]:
        """What it may be called, with hyphens: as it is listed, and as messages name it, train.value-model.

        Args:
          folder: the one whose programs alone are told of.
        """
        name = self.words[-1]
        names = {self.words, (self.folder, name), (f"{self.folder}.{name}",)}
        return names if folder is None else {*names, (name,)}


def find_programs() -> list[Program]:
    """All programs, in the order in which they are listed; their files are read, and not imported."""
    found = []
    for folder in FOLDERS:
        for path in sorted((programs_folder() / folder).glob("[!_]*.py")):
            text = path.read_text(encoding="utf-8")
            if '\nif __name__ == "__main__":\n' in text:
                first = text.partition("\n")[0].removeprefix("r").strip('"')
                found.append(Program(f"{folder}.{path.stem}", first))
    return found


def programs_folder() -> Path:
    """The folder that holds decode/, train/ and configs/.

    Raises:
      FileNotFoundError: the installation lacks them.
    """
    for folder in (_PACKAGE / "programs", _PACKAGE.parent):
        if (folder / "decode/generate.py").is_file():
            return folder
    raise FileNotFoundError(
        f"no programs in {_PACKAGE / 'programs'} or {_PACKAGE.parent}: install sia_jax again"
    )


def invocation(module: str = "sia_jax") -> str:
    """How a program is called by the one who called this: "sia generate", or "python -m decode.generate".

    Args:
      module: of the program; the default: of the command that lists them.
    """
    in_checkout = programs_folder() == _PACKAGE.parent
    if in_checkout and not _called_as_sia():
        return f"python -m {module}"
    return " ".join(("sia", *(Program(module, "").words if "." in module else ())))


def running_program() -> str | None:
    """How this process was called, if it is one program: "python -m decode.generate"; else None."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    folder, _, name = ("" if spec is None else spec.name).partition(".")
    return invocation(f"{folder}.{name}") if folder in FOLDERS and not name.startswith("_") else None


def is_program() -> bool:
    """Whether this process runs a program, or the command `sia`."""
    return _called_as_sia() or running_program() is not None


def said(text: str) -> str:
    """A text in which programs are called as the reader has called this one."""
    return re.sub(
        rf"\bpython -m ((?:{'|'.join(FOLDERS)})\.\w+)", lambda found: invocation(found.group(1)), text
    )


def _called_as_sia() -> bool:
    """Whether this process is `sia`, `python -m sia_jax` or `python -m sia_jax.console`."""
    called = Path(sys.argv[0])
    return called.stem == "sia" or called in (_PACKAGE / "console.py", _PACKAGE / "__main__.py")
