"""The guide: its figures stand on the pages that it names, its commands run, and its messages are said."""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from safetensors.numpy import load_file, save_file

from sia_jax.console import main
from sia_jax.extras import MissingExtraError, installed_with
from sia_jax.runs.cli import read_options
from sia_jax.runs.programs import find_programs
from sia_jax.world.files import world_models
from tests.support import markdown_pages
from tests.support.served_process import served_process

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs/guide.md"
TEXT = GUIDE.read_text()
NUMBER = re.compile(r"(?<![\w.,-])[+-]?(?:\d[\d,]*\.\d+|\d{3,}|\d{1,3}(?:,\d{3})+)(?![\w.]?\d|\w)")
"""With a decimal point, or of three digits and more; none that is part of a name."""


def _linked(source: str) -> str:
    """The page, or the section of it, that a link of the guide names."""
    name, _, anchor = source.partition("#")
    return markdown_pages.section((GUIDE.parent / name).read_text(), anchor)


def _pages(paragraph: str) -> list[str]:
    return [source for source in markdown_pages.links(paragraph) if ".md" in source and "://" not in source]


def test_every_row_of_figures_stands_on_the_page_that_it_names():
    tables = [table for table in markdown_pages.tables(TEXT) if table.right]
    assert len(tables) >= 7
    for table in tables:
        for row in table.rows:
            source = (_pages(row[0]) or _pages(table.before))[-1]
            told = dict(zip(table.columns, row, strict=True))
            told.pop("from", None)
            assert len(told) > 2
            found = [
                dict(zip(other.columns, cells, strict=True))
                for other in markdown_pages.tables(_linked(source))
                if told.keys() <= set(other.columns)
                for cells in other.rows
            ]
            assert any(told.items() <= other.items() for other in found), f"{source}: {told}"


def test_every_figure_of_a_paragraph_stands_on_a_page_that_it_names():
    checked = 0
    for paragraph in markdown_pages.paragraphs(TEXT):
        prose = re.sub(r"\]\([^)]*\)|https?://\S+", "", paragraph)
        pages = "\n".join(_linked(source) for source in _pages(paragraph))
        for number in NUMBER.findall(prose):
            checked += 1
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d]|\.\d)", pages), f"{number}: {paragraph}"
    assert checked > 60
    for table in markdown_pages.tables(TEXT):
        assert table.right or not NUMBER.search(re.sub(r"`[^`]*`", "", str(table.rows))), table.rows


def test_what_the_guide_links_is_there():
    for source in markdown_pages.links(TEXT):
        if "://" not in source:
            name, _, anchor = source.partition("#")
            page = GUIDE.parent / name
            assert page.exists(), source
            assert not anchor or anchor in markdown_pages.anchors(page.read_text()), source


def test_every_command_has_options_that_its_program_reads():
    programs = {one.words: one.module for one in find_programs()}
    lines = "".join(markdown_pages.code_blocks(TEXT, "sh")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("sia ")]
    assert len(commands) > 15
    for words in commands:
        count = 2 if tuple(words[:2]) in programs else 1
        module = importlib.import_module(programs[tuple(words[:count])])
        read_options(module.Args, words[count:])


def _shell(script: str, folder: Path) -> str:
    """What a script prints that runs in a folder as in a checkout, with `sia` as installed."""
    for name in ("sia_jax", "decode", "train"):
        (folder / name).symlink_to(ROOT / name)
    begin = f'set -euo pipefail\nsia() {{ {shlex.quote(sys.executable)} -m sia_jax "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", begin + script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "110"},
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


FEWER = {
    "NR % 8 == 1": "NR % 40 == 1",
    "--max-new-tokens 160": "--max-new-tokens 48",
}
"""Parts of commands, and what they are here, so that fewer prompts get shorter replies."""


@pytest.mark.long
def test_the_commands_run_in_their_order(tmp_path):
    blocks = [one for one in markdown_pages.code_blocks(TEXT, "sh") if "127.0.0.1" not in one]
    # The environment is there, and `make smollm` takes hours.
    blocks = [one for one in blocks if "sia serve" not in one and not one.startswith("make ")]
    assert len(blocks) >= 8
    script = "\n".join(blocks)
    for text, fewer in FEWER.items():
        assert text in script
        script = script.replace(text, fewer)
    said = _shell(script, tmp_path)
    first = markdown_pages.code_blocks(TEXT, "text")[0].strip()
    assert "steered" in first
    assert first in said
    for name in re.findall(r"`(out/[^`]+\.md|out/iterated/best)`", TEXT):
        assert (tmp_path / name).exists(), name


@pytest.mark.long
def test_the_server_answers_the_request_of_the_guide():
    (serve,) = (one for one in markdown_pages.code_blocks(TEXT, "sh") if "sia serve" in one)
    (ask,) = (one for one in markdown_pages.code_blocks(TEXT, "sh") if one.startswith("curl"))
    words = shlex.split(serve.replace("$W", str(ROOT / "sia_jax/world/models")))
    assert words[:2] == ["sia", "serve"]
    with served_process(*words[2:]) as server:
        asked = ask.replace("http://127.0.0.1:8000", server.url)
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, timeout=300)
    answer = json.loads(done.stdout)
    assert answer["usage"]["sia"]["steered"] > 0
    assert answer["choices"][0]["message"]["content"]


(_SAYS,) = (table for table in markdown_pages.tables(TEXT) if table.columns[0] == "it says")
MESSAGES = [row[0].strip("`") for row in _SAYS.rows if row[0].startswith("`")]
REFUSED = {
    "LocalEntryNotFoundError": "generate --policy Qwen/Qwen3-1.7B --prompt hi",
    "GatedRepoError": "generate --policy meta-llama/Llama-3.2-1B --prompt hi",
    "vocabularies": "generate --policy other-tokenizer --value WORLD/value-small --prompt hi",
    "other weights": "generate --policy other-weights --value WORLD/value-token --prompt hi",
    "positions": "generate --policy WORLD/policy --max-new-tokens 100000 --prompt hi",
    "memory": "serve --rows 100000",
    "--host": "serve --host 0.0.0.0",
}
"""What a message is known by, and the command that is refused with it."""


def _hub_says(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


def _copies_of_the_policy(folder: Path) -> None:
    """other-tokenizer/, where four words have one another's ids, and other-weights/."""
    for name in ("other-tokenizer", "other-weights"):
        shutil.copytree(world_models() / "policy", folder / name)
    path = folder / "other-tokenizer/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.get)[-4:]
    ids = [vocabulary[word] for word in words]
    vocabulary.update(zip(words, ids[1:] + ids[:1], strict=True))
    path.write_text(json.dumps(tokenizer))
    weights = folder / "other-weights/model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.long
@pytest.mark.parametrize("known_by", REFUSED)
def test_a_refusal_is_worded_as_in_the_guide(known_by, tmp_path, monkeypatch):
    (message,) = (one for one in MESSAGES if known_by in one)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if known_by == "LocalEntryNotFoundError":
        _hub_says(monkeypatch, LocalEntryNotFoundError("no network"))
    if known_by == "GatedRepoError":
        answer = httpx.Response(403, request=httpx.Request("GET", "http://127.0.0.1/"))
        _hub_says(monkeypatch, GatedRepoError("403 Client Error.", response=answer))
    if "other-" in REFUSED[known_by]:
        _copies_of_the_policy(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(shlex.split(REFUSED[known_by].replace("WORLD", str(world_models()))))
    for part in filter(None, message.split("...")):
        assert part in str(stopped.value.code)


def test_every_message_of_the_guide_is_provoked():
    extra = MESSAGES[-1]
    with pytest.raises(MissingExtraError, match=re.escape(extra)), installed_with("train"):
        raise ModuleNotFoundError(name="grain")
    assert len(MESSAGES) == len(REFUSED) + 1
    assert all(sum(word in message for message in MESSAGES) == 1 for word in REFUSED)
