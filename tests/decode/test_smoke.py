"""The check of an installation sees what is wrong."""

from dataclasses import replace

import jax
import pytest

from decode import smoke
from sia_jax.world.checks import Loaded

pytestmark = [pytest.mark.long, pytest.mark.optimised]


def test_an_installation_that_works_passes(capsys: pytest.CaptureFixture[str]) -> None:
    smoke.main(smoke.Args(tokens=6))
    lines = capsys.readouterr().out.splitlines()
    assert [line[:2] for line in lines] == ["ok"] * 6 + ["al"]


@pytest.mark.parametrize("part", ["policy", "value"])
def test_other_numbers_are_seen(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = smoke.sample

    def off(loaded: Loaded, length: int, threshold: float) -> object:
        """Replies of models whose weights are a few percent from those that they are held against."""
        model = getattr(loaded, part)
        changed = replace(model, params=jax.tree.map(lambda x: x * 1.05, model.params))
        return whole(replace(loaded, **{part: changed}), length, threshold)

    monkeypatch.setattr(smoke, "sample", off)
    message = r"^decode.smoke: (a token.s logit|the record|token \d|the recorded value)"
    with pytest.raises(SystemExit, match=message):
        smoke.main(smoke.Args(tokens=6))
