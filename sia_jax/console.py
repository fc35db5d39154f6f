"""The console command `sia`: it lists the programs of decode/, train/ and configs/, and runs one.

    sia                             # a line for each program
    sia generate --help
    sia train value-model --data data/uf --base Qwen/Qwen3-1.7B-Base --out out/vm

A program is a module of these folders that ends in `main(read_options(Args, description=__doc__))`. In a
checkout the folders lie beside sia_jax/, and `python -m decode.generate` runs one as well; a wheel carries
them in sia_jax/programs/. Nothing that takes time is imported before a program is chosen.
"""

import difflib
import importlib
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

import sia_jax
from sia_jax.extras import MissingExtraError
from sia_jax.files.pipes import reader_may_leave
from sia_jax.runs.programs import FOLDERS, Program, find_programs, invocation, programs_folder, said

HELP = ("-h", "--help", "help")


def main(arguments: Sequence[str] | None = None, *, folder: str | None = None) -> None:
    """Run the program that the arguments name, or list them.

    Exits with 0 after a list or --version, with 2 where no program has the name, with 130 after Ctrl-C, else
    as the program does.

    Args:
      arguments: those of the command line by default.
      folder: of whose programs alone the arguments tell, for `python -m decode`.
    """
    try:
        with reader_may_leave():
            _main(list(sys.argv[1:] if arguments is None else arguments), folder)
    except KeyboardInterrupt:  # before the program that was named takes it
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


def _main(words: list[str], folder: str | None) -> None:
    """`main` of a list of words."""
    programs = [one for one in find_programs() if folder in (None, one.folder)]
    if words[:1] == ["--version"]:
        print(f"sia_jax {sia_jax.__version__}")
        return
    if not words or words[0] in HELP:
        _list(programs)
        return
    called = {name: program for program in programs for name in program.names(folder)}
    for count in (2, 1):
        program = called.get(tuple(word.replace("_", "-") for word in words[:count]))
        if program is not None:
            run(program, words[count:])
            return
    group = [one for one in programs if one.words[0] == words[0]]
    if group and (len(words) == 1 or words[1] in HELP):
        _list(group)
        return
    sys.exit(_refuse(words, called, whole_group=bool(group)))


def run(program: Program, arguments: Sequence[str]) -> None:
    """Run one program with these options."""
    root = str(programs_folder())
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        module = importlib.import_module(program.module)
    except MissingExtraError as error:
        sys.exit(f"{program.module}: {error}")
    from sia_jax.runs.cli import read_options

    args = read_options(
        module.Args,
        arguments,
        prog=invocation(program.module),
        description=said(module.__doc__ or ""),
        **({"default": module.ARGS} if hasattr(module, "ARGS") else {}),
    )
    module.main(args)


def _list(programs: Sequence[Program]) -> None:
    """Print a line for each, and how one is called."""
    calls = {one: invocation(one.module) for one in programs}
    width = max(map(len, calls.values()))
    room = max(20, shutil.get_terminal_size((140, 24)).columns - width - 4)
    for folder, title in FOLDERS.items():
        group = [one for one in programs if one.folder == folder]
        if group:
            print(title)
        for one in group:
            print(f"  {calls[one]:{width}}  {textwrap.shorten(one.summary, room, placeholder=' …')}")
    example = next((one for one in programs if one.words == ("generate",)), programs[0])
    print(f"\nOptions of a program: {calls[example]} --help")


def _refuse(words: Sequence[str], called: Mapping[tuple[str, ...], Program], whole_group: bool) -> int:
    """Say that there is no such program, and which are called nearly so; the exit status."""
    name = " ".join(words[: 2 if whole_group else 1])
    names = {" ".join(name): program for name, program in called.items()}
    for program in called.values():
        names.setdefault(program.words[-1], program)
    near: list[str] = []
    for wanted in (" ".join(words[:2]), name):
        for one in difflib.get_close_matches(wanted.replace("_", "-"), names, n=3):
            if (call := invocation(names[one].module)) not in near:
                near.append(call)
    print(f"there is no program {name!r}", file=sys.stderr)
    print(
        f"did you mean {' or '.join(near)}?" if near else f"all of them: {invocation()} --help",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    main()
