"""The commands of the pages run as they stand, in their order, on tiny models of the names that they use.

What cannot run here is named, with the tests that run it or what it takes. Replies are made shorter than on a
page, and trials of intervals fewer.
"""

import glob
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sia_jax import console
from sia_jax.serve.keys import read_keys
from tests.support.markdown_pages import code_blocks
from tests.support.memory_maps import forget_programs_if_many
from tests.support.page_commands import PAGES, ROOT, commands, options_of, program_of
from tests.support.page_folder import fill, save_models

ELSEWHERE = {
    "README.md": "make: .ci/run, and tests/serve/test_process.py",
    "CONTRIBUTING.md": "the suite itself, .ci/run, and what fetches from elsewhere",
    "docs/guide.md": "tests/test_guide.py",
    "docs/serving.md": "tests/serve/test_process.py, tests/docker, tests/conformance",
}
"""Pages whose commands run elsewhere, and where."""
HERE = [page for page in PAGES if page not in ELSEWHERE and commands(page)]
ALONE = {
    "--ray": "tests/cluster",
    "pip": "make ray",
    "serve": "tests/serve/test_process.py",
    "iterate": "tests/test_guide.py, tests/train/test_iterate.py",
    "out/iterated/best": "the same",
    "tests.fuzz": "make fuzz",
}
"""Words of commands that run in tests of their own, or by make."""
FEWER = {
    **dict.fromkeys(
        (
            *("decode.generate", "decode.calibrate", "decode.evaluate", "decode.own_prefixes"),
            *("configs.thresholds", "configs.baselines", "configs.gates", "configs.with_best_of_n"),
            *("configs.post_trained", "decode.entropy_study"),
        ),
        ("--max-new-tokens", "6"),
    ),
    "decode.coverage": ("--trials", "20"),
}
"""An option of programs that would write or draw much, and what it is here."""
EVALUATIONS = re.compile(r"out/(?:pilot|evaluation(?=/)|world-report/contenders/\S+|world-iterate/\S+)")
"""Folders of evaluations that pages compare, or plan by."""
DIRS = {
    "--policy": "models/policy",
    "--value": "models/value",
    "--reward": "models/reward",
    "--input": "UltraFeedback",
}
"""What DIR stands for, by the option before it."""
CALIBRATE = "sia calibrate --policy DIR --prompts validation.jsonl --out"
COMPARED = """
sia calibrate --policy DIR --prompts validation.jsonl --out t.json
sia evaluate --policy DIR --value DIR --reward DIR --prompts test.jsonl --thresholds t.json --ratios 0.2 \\
  --methods base dense entropy --combined 0 --gold-function sia_jax.world.rewards:gold --out made
"""
BEFORE = {
    "docs/clusters.md": f"{CALIBRATE} t.json\n{CALIBRATE} thresholds.json",
    "docs/data.md": f"{CALIBRATE} t.json",
    "docs/evaluation.md": """
sia generate --policy DIR --value DIR --threshold=-inf --record --prompts train.jsonl --out others.jsonl
sia learn-gate --replies others.jsonl --out gate.json
sia evaluate --policy DIR --value DIR --reward DIR --prompts test.jsonl --methods base dense --seeds 2 \\
  --out made
""",
    "docs/smollm2.md": """
sia generate --policy DIR --value DIR --threshold=-inf --record --prompts train.jsonl --temperature 0.7 \\
  --beta 5 --out others.jsonl
sia learn-gate --replies others.jsonl --out out/smollm2/gate.json
""",
    "docs/world-bounds.md": COMPARED,
    "docs/world-iterate.md": COMPARED,
}
"""What a page takes for granted, made by commands of others; `made` is an evaluation."""


def test_every_block_of_a_page_says_what_it_is() -> None:
    for page in PAGES:
        assert code_blocks((ROOT / page).read_text(), "") == [], page


def test_what_runs_elsewhere_is_on_some_page() -> None:
    words = {word for page in HERE for command in commands(page) for word in command}
    assert ALONE.keys() <= words


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a page."""
    fill(tmp_path, models)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # where judging.py is
    monkeypatch.setattr(sys, "stdin", io.StringIO("How do I boil an egg?\n"))  # which a chat reads
    for name, text in {"ID": "3", "COUNT": "16", "MIN": "0", "MAX": "15", "STEP": "1"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", text)  # of --shard env
    return tmp_path


def prepare(page: str, folder: Path) -> None:
    """What the page takes for granted."""
    for line in BEFORE.get(page, "").replace("\\\n", "").strip().splitlines():
        run(line.split())
    if (folder / "made").exists():
        for name in EVALUATIONS.findall(" ".join(word for words in commands(page) for word in words)):
            if not (folder / name).exists():
                shutil.copytree(folder / "made", folder / name)


def run(words: list[str]) -> None:
    """Run a command in this process."""
    called = program_of(words)
    assert called is not None, words
    program, options = called
    options = [option for word in options for option in sorted(glob.glob(word)) or [word]]
    for place, option in enumerate(options):
        if option == "DIR":
            options[place] = DIRS[options[place - 1]]
    name, value = FEWER.get(program.module, ("", ""))
    if name in options:
        options[options.index(name) + 1] = value
    elif name:
        options += [name, value]
    console.run(program, options)
    forget_programs_if_many()  # a page has many commands


def shown(page: str) -> Iterator[list[str]]:
    """The commands of a page that run here, each shard of a work that is split.

    Of the paper's many runs, which differ in names alone, those of one policy and one set.
    """
    for words in commands(page):
        one = re.search(r"0\.6B.*hex-phi|configs\.thresholds.*0\.6B", " ".join(words))
        alike = page == "configs/README.md" and one is None
        if alike or ALONE.keys() & set(words):
            continue
        for shard in range(4 if "0/4" in words else 1):
            whole = [f"{shard}/4" if word == "0/4" else word for word in words]
            # What the page of data shows is files; one method reads them as all do.
            yield [*whole, "--methods", "base"] if page == "docs/data.md" else whole


@pytest.mark.long
@pytest.mark.parametrize("page", HERE)
def test_the_commands_of_a_page_run_in_their_order(page: str, folder: Path) -> None:
    prepare(page, folder)
    count = 0
    for words in shown(page):
        run(words)
        count += 1
    assert count


def test_keys_are_made_as_the_page_of_the_server_says(tmp_path: Path) -> None:
    (make,) = (
        line
        for block in code_blocks((ROOT / "docs/serving.md").read_text(), "sh")
        for line in block.splitlines()
        if "secrets" in line
    )
    subprocess.run(["bash", "-c", make], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "keys.txt").stat().st_mode & 0o777 == 0o600
    assert len(read_keys(tmp_path / "keys.txt", None)) == 1


def test_the_job_of_kubernetes_runs_a_program_with_options_that_it_reads() -> None:
    (text,) = code_blocks((ROOT / "docs/clusters.md").read_text(), "yaml")
    job = yaml.safe_load(text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    called = program_of([*container["command"], *container["args"]])
    assert called is not None
    options_of(*called)
    assert container["env"] == [{"name": "SIA_JAX_SHARDS", "value": str(job["spec"]["completions"])}]


def test_the_lines_of_json_are_json() -> None:
    blocks = [text for page in PAGES for text in code_blocks((ROOT / page).read_text(), "json")]
    assert blocks
    for line in "".join(blocks).splitlines():
        assert json.loads(line)
