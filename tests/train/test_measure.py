"""train.measure: values of held-out replies against their rewards."""

import json
from pathlib import Path

import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import read_records, trajectories
from sia_jax.models.config import ValueConfig
from sia_jax.training.config import TrainConfig
from sia_jax.training.loop import LoopConfig, evaluate
from tests.support.checkpoints import save_tiny_value_model
from train import measure
from train.measure import Args, token_values


@pytest.fixture(scope="module", params=["scalar", "vocab"])
def value(
    request: pytest.FixtureRequest, folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("value")
    policy = sia_jax.load_policy(folders[1])
    save_tiny_value_model(folder, policy, head=request.param)
    return folder


def loaded(value: Path, folders: tuple[Path, Path]) -> sia_jax.ValueModel:
    return sia_jax.load_value_model(value, sia_jax.load_policy(folders[1]))


def test_each_token_has_the_value_that_its_reply_has_alone(value, folders):
    model = loaded(value, folders)
    data, _ = trajectories(read_records(folders[0]), model.config.backbone.vocab_size, 1024)
    for one, found in zip(data[:5], token_values(model, list(data[:5])), strict=True):
        ids = [*one.prompt_ids.tolist(), *one.reply_ids.tolist()]
        read = np.asarray(model.values([ids], [len(ids)]))[0]
        places = range(len(one.prompt_ids), len(ids))
        wanted = [read[t - 1, ids[t]] if model.config.head == "vocab" else read[t] for t in places]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_figures_are_those_of_a_trainings_held_out_replies(value, folders, tmp_path, capsys):
    out = tmp_path / "m.json"
    measure.main(Args(value=str(value), base=str(folders[1]), data=folders[0], out=str(out)))
    written = json.loads(out.read_text())
    model = loaded(value, folders)
    data, _ = trajectories(read_records(folders[0]), model.config.backbone.vocab_size, 1024)
    trained = "lora" if model.config.lora is not None else "head"
    config = TrainConfig(ValueConfig(**vars(model.config)), trained=trained)
    frozen = {"model": model.base}
    _, theirs = evaluate(frozen, model.params, data, config, LoopConfig(row_length=1024))
    own = written["figures"]["mean"]
    assert written["replies"] == theirs.count == len(data)
    assert own["r2"]["estimate"] == pytest.approx(theirs.r2, abs=1e-4)
    assert own["mae"]["estimate"] == pytest.approx(theirs.mae, abs=1e-4)
    assert own["rank_agreement"]["estimate"] == pytest.approx(theirs.rank_agreement, abs=1e-9)
    assert own["r2"]["low"] is None  # 100 prompts have one, not these
    assert f"{own['r2']['estimate']:.3f} [?]" in capsys.readouterr().out


def test_replies_that_are_too_long_are_counted_and_none_left_is_refused(value, folders, capsys):
    with pytest.raises(SystemExit) as error:
        measure.main(Args(value=str(value), base=str(folders[1]), data=folders[0], max_tokens=1))
    assert "holds nothing that could be measured" in str(error.value.code)
    assert "kept out" in capsys.readouterr().err
