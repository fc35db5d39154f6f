"""The demo on the embedded world: every file is right; how it is called."""

import pytest

from decode.demo import Args, choose_prompts, main
from sia_jax.world import files
from tests.support.demo_outputs import check


def test_the_demo_writes_replies_numbers_a_page_and_a_picture(tmp_path, capsys):
    main(Args(out=tmp_path, prompts=12, shown=2))
    check(tmp_path)
    said = capsys.readouterr().out
    for name in ("base", "dense", "gold reward", "decode.generate"):
        assert name in said


def test_its_prompts_are_held_out_and_of_all_families():
    chosen = choose_prompts(10)
    assert len(set(chosen)) == 10
    assert {prompt.split for prompt in chosen} == {"test"}
    assert [prompt.family for prompt in chosen[:3]] == ["helpful", "harmless", "honest"]


@pytest.mark.parametrize(("options", "message"), [({"shown": 9, "prompts": 3}, "--shown must lie in 1")])
def test_numbers_that_do_not_fit_are_refused(options, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        main(Args(out=tmp_path, **options))


def test_a_folder_without_models_is_refused_with_the_way_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "files.py"))
    with pytest.raises(SystemExit, match=r"make them again: python -m train\.world"):
        main(Args(out=tmp_path))
