"""The steps of a Dockerfile carried out in a fresh folder, on a machine without Docker.

What differs from an image: paths lie below that folder; its Python is a fresh virtual environment of this
machine's, and programs of the system are this machine's; a user is a home folder, and, where the steps are
carried out by root, this machine's user nobody; and of commands there are pip, rm, install and useradd.
"""

import json
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.support.dockerfile import Instruction, commands, parse, sent, substituted

_OF_THE_REGISTRY = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Variables, or how they begin, that pip may need to reach its packages from here; in capitals or not."""


@dataclass
class Image:
    """What the steps have made so far."""

    context: Path
    """The folder with the Dockerfile."""
    root: Path
    """What is / in the image."""
    python: Path
    """The interpreter of which the image's Python is made."""
    variables: dict[str, str] = field(default_factory=dict)
    """Of ARG, which end with the steps."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of ENV: names to values, of which those that are paths are paths of the image."""
    folder: PurePosixPath = field(default_factory=lambda: PurePosixPath("/"))
    users: set[str] = field(default_factory=set)
    user: str = "root"
    exposed: int = 0
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    @property
    def venv(self) -> Path:
        """Where the image's Python is."""
        return self.root / "usr/local"

    @property
    def home(self) -> Path:
        """Of the user."""
        return self.inside("/root" if self.user == "root" else f"/home/{self.user}")

    def inside(self, path: str) -> Path:
        """Where a path of the image is on this machine.

        Raises:
          ValueError: it leaves the image.
        """
        found = self.root.joinpath(*(self.folder / path).parts[1:])
        if not Path(os.path.normpath(found)).is_relative_to(self.root):
            raise ValueError(f"{path}: expected a path of the image")
        return found

    def build(self, arguments: Mapping[str, str], say: Callable[[str], None]) -> None:
        """Carry out all steps.

        Args:
          arguments: of the build, in place of the defaults of ARG.
          say: told each step.

        Raises:
          ValueError: a step that cannot be carried out here.
          subprocess.CalledProcessError: one that failed.
        """
        instructions = parse((self.context / "Dockerfile").read_text())
        unknown = set(arguments) - {one.rest.split("=")[0] for one in instructions if one.word == "ARG"}
        if unknown:
            raise ValueError(f"expected arguments that the Dockerfile has, got {sorted(unknown)}")
        for one in instructions:
            say(f"{one.word} {one.rest}")
            try:
                self._step(one, arguments)
            except ValueError as error:
                raise ValueError(f"Dockerfile, line {one.line}: {error}") from error

    def _step(self, one: Instruction, arguments: Mapping[str, str]) -> None:
        rest = one.rest
        if one.word == "FROM":
            self._check_python(rest)
            subprocess.run([self.python, "-m", "venv", "--copies", self.venv], check=True, env=self._plain())
        elif one.word == "ARG":
            name, _, value = rest.partition("=")
            self.variables[name] = arguments.get(name, value)
        elif one.word == "ENV":
            for pair in rest.split():
                name, equals, value = pair.partition("=")
                if not equals:
                    raise ValueError(f"expected NAME=VALUE, got {pair!r}")
                self.environment[name] = self._substituted(value)
        elif one.word == "WORKDIR":
            self.folder /= self._substituted(rest)
            self.inside(".").mkdir(parents=True, exist_ok=True)
        elif one.word == "COPY":
            *sources, target = self._substituted(rest).split()
            self._copy(sources, target)
        elif one.word == "RUN":
            for words in commands(rest, self.variables | self.environment):
                self._run(words)
        elif one.word == "USER":
            if rest not in self.users:
                raise ValueError(f"expected one of the users {sorted(self.users)}, got {rest!r}")
            self.user = rest
        elif one.word == "EXPOSE":
            self.exposed = int(rest)
        elif one.word == "HEALTHCHECK":
            self.health = _words(rest.partition("CMD ")[2])
        elif one.word == "ENTRYPOINT":
            self.entrypoint = _words(rest)
        else:
            self.command = _words(rest)

    def _check_python(self, name: str) -> None:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        version = subprocess.run(
            [self.python, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
        if name != f"python:{version}-slim":
            raise ValueError(f"expected the interpreter of {name}, got Python {version} of {self.python}")

    def _substituted(self, text: str) -> str:
        return substituted(text, self.variables | self.environment)

    def _copy(self, sources: Iterable[str], target: str) -> None:
        """Files go into a folder under their names, and of a folder what it holds."""
        files = list(sent(self.context))
        for source in sources:
            own = [path for path in files if path == Path(source) or path.is_relative_to(source)]
            if not own:
                raise ValueError(f"{source}: nothing of it is sent to the build; see .dockerignore")
            for path in own:
                alone = path == Path(source)
                if alone and not target.endswith("/"):
                    raise ValueError(f"expected a folder, with / behind it, for a file, got {target}")
                to = self.inside(target) / (path.name if alone else path.relative_to(source))
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.context / path, to)

    def _run(self, words: list[str]) -> None:
        if self.user != "root":
            raise ValueError("expected RUN before USER")
        if not self.inside(".").is_dir():
            raise ValueError(f"the working folder {self.folder} is gone")
        if words[0] == "useradd":
            self._add_user(words[1:])
        elif words[0] == "install":
            self._make_folders(words[1:])
        elif words[0] == "rm":
            for path in [word for word in words[1:] if not word.startswith("-")]:
                if self.inside(path) == self.root:
                    raise ValueError("expected to remove less than all")
                shutil.rmtree(self.inside(path))
        elif words[0] == "pip":
            kept = {
                name: value for name, value in os.environ.items() if name.upper().startswith(_OF_THE_REGISTRY)
            }
            pip = [self.venv / "bin/python", "-m", *words]
            quiet = {"PIP_QUIET": "2", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            subprocess.run(pip, cwd=self.inside("."), env=self._plain() | quiet | kept, check=True)
        else:
            raise ValueError(f"expected pip, rm, install or useradd, got {words[0]!r}")

    def _add_user(self, words: list[str]) -> None:
        """The home; this machine's own users stay as they are."""
        if words[:2] != ["--create-home", "--uid"] or len(words) != 4:
            raise ValueError(f"expected useradd --create-home --uid NUMBER NAME, got {words}")
        self.users.add(words[3])
        home = self.inside(f"/home/{words[3]}")
        home.mkdir(parents=True)
        self._give(home, words[3])

    def _make_folders(self, words: list[str]) -> None:
        flags, paths = words[:5], words[5:]
        if flags[:2] != ["-d", "-o"] or flags[3] != "-g" or flags[2] != flags[4] or not paths:
            raise ValueError(f"expected install -d -o USER -g USER FOLDER ..., got {words}")
        for path in paths:
            self.inside(path).mkdir()
            self._give(self.inside(path), flags[2])

    def _give(self, path: Path, user: str) -> None:
        if user not in self.users:
            raise ValueError(f"expected one of the users {sorted(self.users)}, got {user!r}")
        if os.getuid() == 0:
            os.chown(path, _nobody(), _nobody())

    def _plain(self) -> dict[str, str]:
        """For steps of root. pip finds its own settings in the home of who carries them out."""
        path = f"{self.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(Path.home()), "LANG": "C.UTF-8"}

    def seal(self) -> bool:
        """Take the right to write from all but the user's home; whether what runs is a user of its own.

        That takes root, and an interpreter that others may run. Without, files without the right are all that
        holds the process back.
        """
        for path in [self.root, *self.root.rglob("*")]:
            if not path.is_relative_to(self.home) and not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)
        self.root.chmod(0o555)
        base = self.python.resolve()
        seen = all(path.stat().st_mode & stat.S_IXOTH for path in (base, *base.parents, *self.root.parents))
        return os.getuid() == 0 and seen

    def unseal(self) -> None:
        """Let it be removed."""
        for path in [self.root, *self.root.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)

    def start(
        self, words: Iterable[str], own_user: bool, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """A process in the image, with nothing of this one's environment.

        Args:
          words: the program, found in the image, and its options.
          own_user: from `seal`.
          variables: more of its environment, as `docker run -e` gives them.
        """
        program, *options = words
        uid = _nobody() if own_user else None
        paths = {
            name: str(self.inside(value)) if value.startswith("/") else value
            for name, value in self.environment.items()
        }
        return subprocess.Popen(
            [self.venv / "bin" / program, *options],
            cwd=self.inside("."),
            env=self._plain() | paths | {"HOME": str(self.home)} | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )


def _nobody() -> int:
    """The number of a user without rights that has a name here, as the image's has there.

    A number without one would not do: what writes compiled programs asks for the owner of a file by name.
    """
    return pwd.getpwnam("nobody").pw_uid


def _words(text: str) -> list[str]:
    """Of the form that no shell reads.

    Raises:
      ValueError: it is another.
    """
    found = json.loads(text) if text.startswith("[") else None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise ValueError(f"expected a list of words in JSON, got {text!r}")
    return found
