"""What pyproject.toml cannot say: a wheel carries the programs inside sia_jax, and nothing beside it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPrograms(build_py):
    """Copy decode/, train/ and configs/ to sia_jax/programs/, where `sia_jax.runs.programs` finds them."""

    def run(self) -> None:
        """Build from nothing: what an earlier build left in this folder would be packed too."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if self.editable_mode:
            return
        for folder in ("decode", "train", "configs"):
            for path in sorted(Path(folder).glob("*")):
                if path.suffix == ".py":
                    target = Path(self.build_lib, "sia_jax/programs", path)
                    self.mkpath(str(target.parent))
                    self.copy_file(str(path), str(target))


setup(cmdclass={"build_py": BuildWithPrograms})
