"""The tiny pair that is served, the options of its server, and an engine that is made alike."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import sia_jax
from decode import serve
from sia_jax.runs import runner
from tests.soak.load import KEY, LIMITS, MAX_LENGTH, ROWS, TOP
from tests.soak.recipes import BASE
from tests.soak.server import ServerProcess
from tests.support.pairs import save_tiny_pair

_SIZES = {"hidden_size": 32, "intermediate_size": 40, "num_layers": 1}


@dataclass(frozen=True)
class Pair:
    """A folder with a pair, and how it is served."""

    folder: Path

    def words(self, **options: object) -> list[str]:
        """Options of its server, and more."""
        own = {
            **{"policy": self.folder / "policy", "value": self.folder / "value", "name": BASE},
            **{"keys": self.folder / "keys", "port": 0, "rows": ROWS, "max-length": MAX_LENGTH},
            **{"top-logprobs": TOP, "threshold": 1.0, "log": "json", **LIMITS, **options},
        }
        return [word for name, value in own.items() for word in (f"--{name}", str(value))]

    def engine(self) -> AbstractContextManager[sia_jax.Engine]:
        """Made as the server's is."""
        args = serve.Args(
            policy=str(self.folder / "policy"),
            value=str(self.folder / "value"),
            rows=ROWS,
            max_length=MAX_LENGTH,
            top_logprobs=TOP,
            threshold=1.0,
        )
        sampling = serve.sampling_args(args)
        return serve.make_engine(args, sampling, runner.load_models(sampling))


def pair_of(folder: Path) -> Pair:
    """Write a pair into a folder, and the key of its server."""
    save_tiny_pair(folder, **_SIZES)
    keys = folder / "keys"
    keys.write_text(f"{KEY}\n")
    keys.chmod(0o600)
    return Pair(folder)


def serving(pair: Pair, folder: Path, cache: Path | None = None, **options: object) -> ServerProcess:
    """A server of a pair, which starts.

    Args:
      pair: that it serves.
      folder: for what it prints.
      cache: of compiled programs; None: as this process has it.
      **options: of the server, over those of `Pair.words`.
    """
    return ServerProcess(pair.words(**options), folder, cache)
