"""The demo on the embedded world: every file is right; how it is called."""

import json
from pathlib import Path

import pytest

from decode.demo import Args, choose_prompts, main
from sia_jax.runs import runner
from sia_jax.world import files
from tests.support.demo_outputs import check

pytestmark = pytest.mark.optimised


@pytest.fixture(scope="module", autouse=True)
def drawn():
    """No blank pictures: the demo's is looked at."""


@pytest.mark.long
def test_the_demo_writes_replies_numbers_a_page_and_a_picture(tmp_path, capsys):
    main(Args(out=tmp_path, prompts=12, shown=2))
    check(tmp_path)
    heard = capsys.readouterr()
    said = " ".join(heard.out.split())
    order = [
        "no intervals: they take 20 prompts",
        "gold, minus base",
        "gold: the true reward",
        "the largest gain",
    ]
    places = [said.index(name) for name in order]
    assert places == sorted(places)  # numbers, what they are, then replies
    assert said.index("Next, words of your own") > places[-1]
    assert "7 ways to steer x 12 prompts = 84 replies" in " ".join(heard.err.split())
    for command in ("decode.generate --policy", "decode.chat --policy Qwen/Qwen3-1.7B"):
        assert command in said
    hint = said[said.index("decode.generate --policy") :].split()
    assert (Path(hint[2]).is_dir(), Path(hint[4]).is_dir()) == (True, True)


def test_its_prompts_are_held_out_and_of_all_families():
    chosen = choose_prompts(10)
    assert len(set(chosen)) == 10
    assert {prompt.split for prompt in chosen} == {"test"}
    assert [prompt.family for prompt in chosen[:3]] == ["helpful", "harmless", "honest"]


def changed(folder, **changes):
    """A folder with thresholds that do not fit."""
    content = json.loads((files.world_models() / "thresholds.json").read_text())
    for name, value in changes.items():
        content[name] = value(content[name])
    (folder / "thresholds.json").write_text(json.dumps(content))
    for name in ("policy", "value-token", "reward"):
        (folder / name).symlink_to(files.world_models() / name)
    return folder


def test_thresholds_of_something_else_are_refused_before_anything_is_sampled(tmp_path, monkeypatch):
    def load(args):
        raise AssertionError("the models were loaded")

    monkeypatch.setattr(runner, "load_models", load)
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    changed(models, settings=lambda settings: settings | {"temperature": 0.5})
    with pytest.raises(SystemExit, match=r"of another policy or way to sample: temperature 0.5 \(now 1.0\)"):
        main(Args(out=out, models=str(models)))
    few = tmp_path / "few"
    few.mkdir()
    changed(few, thresholds=lambda rows: [row for row in rows if row["ratio"] != 0.2])
    with pytest.raises(
        SystemExit, match=r"has none for 0.2, only for \[0.1, 0.4, 0.6, 0.8\]; decode.calibrate"
    ):
        main(Args(out=out, models=str(few)))
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shown": 9, "prompts": 3}, "--shown must lie in 1"),
        ({"shown": 1, "prompts": 1}, "--prompts must be 2 or more"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        main(Args(out=tmp_path, **options))


def test_a_folder_without_models_is_refused_with_the_way_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "files.py"))
    with pytest.raises(SystemExit, match=r"make them again: sia train world"):
        main(Args(out=tmp_path))
