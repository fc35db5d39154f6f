"""Eight fake CPU devices for the whole suite, set before JAX starts; single-device tests use the first."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

from sia_jax.runs.compilation_cache import keep_compiled
from tests.support.file_progress import FileProgress
from tests.support.memory_maps import forget_programs_if_many

# What rich would take for wishes of the terminal, whose pictures the tests compare.
for name in ("TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)

# How long an example takes says what else the machine does.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

# What is compiled is kept for all workers, for programs that tests start and for the next run of the suite,
# and not in the user's cache. The key of a program is all that it is made of.
os.environ["SIA_JAX_COMPILATION_CACHE"] = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
keep_compiled()

jax.config.update("jax_num_cpu_devices", 8)

# A PNG of one pixel.
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
)

BESIDE = {"parity", "conformance", "cluster", "pages", "smollm2", "tokenizers"}
"""Folders that targets of their own run."""

LONGEST = (
    "train/test_killed.py",
    "train/test_world.py",
    "test_guide.py",
    "train/test_iterate_killed.py",
    "docs/test_commands.py",
    "decoding/test_rows.py",
    "decoding/test_against_oracle.py",
    "evaluation/test_statistics.py",
    "decoding/test_promises.py",
    "decoding/test_law.py",
    "decoding/test_program.py",
    "models/test_golden_parity.py",
    "training/test_objective.py",
    "train/test_value_model.py",
    "decoding/test_identities.py",
    "decode/test_evaluate.py",
    "decode/test_evaluate_grown.py",
    "decode/test_evaluate_gates.py",
    "evaluation/test_gate_shares.py",
    "training/test_resuming.py",
    "decode/test_generate.py",
    "models/test_cache.py",
    "decoding/test_over_a_mesh.py",
    "rewards/test_labelling.py",
    "decode/test_benchmark_compile.py",
    "training/test_distributed.py",
    "parallel/test_processes.py",
    "decoding/test_offsets.py",
    "models/test_lora.py",
    "docs/test_tour.py",
    "train/test_pipeline.py",
    "parallel/test_mesh.py",
    "house/test_installed.py",
)
"""Files by the time that they take, with the long tests or without, whichever is more."""


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """A line for each file instead of a dot for each test; -v and -vv stay as they are."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and config.option.verbose <= 0:
        reporter.showfspath = False
        config.pluginmanager.register(FileProgress(reporter), "file-progress")


def is_optimised(item: pytest.Item | pytest.Collector) -> bool:
    """Whether a file is compiled as users' programs are: it is marked so, or of a suite beside this one."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return item.get_closest_marker("optimised") is not None or folder in BESIDE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that are compiled alike together, and of these the longest first.

    Two workers take whole files. Between two kinds of compilation all programs are forgotten, which should
    happen once; and none should begin a long file when the other has ended.
    """
    root = Path(__file__).parent

    def rank(item: pytest.Item) -> tuple[bool, int]:
        name = item.path.relative_to(root).as_posix()
        place = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        return is_optimised(item), place

    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """After a file, see that its programs leave room for the next one's."""
    yield
    forget_programs_if_many()


@pytest.fixture(scope="module", autouse=True)
def optimisation(request: pytest.FixtureRequest) -> None:
    """The programs of a file are compiled in half of the time, if it is not to be optimised.

    XLA then spares LLVM's optimisations: a program computes the same, but for roundings, and takes longer to.
    Files of this suite have the mark that look into programs, that run long ones, or that hold numbers beside
    those of processes of their own, which are optimised. They meet no program of the others.
    """
    option = "jax_disable_most_optimizations"
    spared = not is_optimised(request.node)
    if jax.config.values[option] != spared:
        jax.clear_caches()
        jax.config.update(option, spared)


@pytest.fixture(scope="module")
def blank_pictures() -> Iterator[None]:
    """Pictures are one dot: laying out and drawing one takes matplotlib half a second.

    For tests of programs, which draw at the end of every run; tests/reports looks at what is drawn.
    """
    from matplotlib.figure import Figure  # not in workers that draw nothing

    from sia_jax.reports import pictures

    def write(drawn: object, target: Path, **options: object) -> None:
        target.write_bytes(DOT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw_picture", write)
        patch.setattr(Figure, "savefig", write)
        yield


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads the models of a run fails."""
    from sia_jax.runs import runner  # not before a test that asks for it

    def load(args: object) -> None:
        raise AssertionError("the models were loaded")

    monkeypatch.setattr(runner, "load_models", load)
