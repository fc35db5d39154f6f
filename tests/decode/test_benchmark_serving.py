"""decode.benchmark_serving: what it starts the server with, and asks both sides."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decode import serve
from decode.benchmark_serving import KINDS, PRESETS, Args, Bench, main, make_pair, presets_text, server_words
from sia_jax.benchmarks import guidellm
from sia_jax.benchmarks.serving import STEERINGS, Load
from sia_jax.runs.cli import read_options
from sia_jax.runs.console import Terminal
from tests.benchmarks.test_guidellm import report


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rows": 0}, "--rows, --tries and --streams must be 1 or more"),
        ({"streams": (4, 0)}, "--rows, --tries and --streams must be 1 or more"),
        ({"shapes": ()}, "--shapes be given"),
        ({"guidellm": Path("none")}, "--guidellm none: there is no such command; make bench-serve"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_measured(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    (tmp_path / "guidellm").touch()
    args = Args(guidellm=tmp_path / "guidellm", out=tmp_path / "records")
    with pytest.raises(SystemExit, match=told):
        main(replace(args, **changes))
    assert not (tmp_path / "records").exists()


def test_the_servers_names_are_the_numbers_that_the_engine_gets() -> None:
    assert set(PRESETS) == set(STEERINGS)
    tables = tomllib.loads(presets_text(PRESETS))
    assert tables["unsteered"] == {"threshold": math.inf}
    assert tables["dense"]["threshold"] == -math.inf
    for name, preset in PRESETS.items():
        for field, number in tables[name].items():
            assert getattr(preset, field) == number
        assert sum(x is not None for x in vars(preset).values()) == len(tables[name])


def test_the_server_is_started_with_the_options_that_the_engine_is_made_by() -> None:
    served = serve.Args(policy="p q", value="v", threshold=0.0, gate="budget(0.2)", port=7, rows=3)
    words = server_words(served)
    assert words[1:3] == ["-m", "decode.serve"]
    assert read_options(serve.Args, words[3:]) == served


def test_the_embedded_models_are_asked_their_own_prompts_again_and_again(tmp_path: Path) -> None:
    pair = make_pair("world", 1000, tmp_path)
    assert len(pair.prompts) == 1000
    assert pair.prompts[0] in pair.prompts[1:]
    assert all(path.is_dir() for path in (pair.policy, pair.value))
    assert set(KINDS) >= {"world", "mini"}


def test_replies_of_another_length_than_was_asked_for_are_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decode.benchmark_serving.run_guidellm", lambda *_: report())
    load = Load((1, 4), (2, 3), new_tokens=50, tries=1)
    bench = Bench(Path("g"), load, ("Hello?",) * 3, tmp_path, Terminal())
    with pytest.raises(ValueError, match="3 replies of 50 tokens each were asked for, and they had 60"):
        bench.ask("http://127.0.0.1:1", "unsteered")
    assert guidellm.read_report(report(), (1, 4), (2, 3))[0].tokens == 100
