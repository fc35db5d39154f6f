"""train.value_model --states policy: a vocab head on the base's own hidden states is all that is trained."""

import json

import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import Record, write_records
from sia_jax.models.config import ValueConfig
from tests.support.checkpoints import assert_same_trees, save_tiny_policy
from tests.support.marks import long
from tests.support.tokenizers import save_qwen3_tokenizer
from tests.train.test_value_model import STATES, files, train


@pytest.mark.parametrize("objective", [long("mean"), long("token"), "distil"])
def test_a_head_on_the_policys_states_is_all_that_is_trained_and_goes_on(objective, folders, tmp_path):
    options = STATES | {"objective": objective, "epochs": 1}
    if objective == "distil":
        train(folders, tmp_path / "teacher", max_steps=1)
        options["teacher"] = str(tmp_path / "teacher" / "last")
    before = files(folders[1])
    train(folders, tmp_path / "whole", **options)
    train(folders, tmp_path / "parts", max_steps=2, **options)
    train(folders, tmp_path / "parts", **options)
    assert files(folders[1]) == before
    policy = sia_jax.load_policy(folders[1])
    found = [sia_jax.load_value_model(tmp_path / name / "last", policy) for name in ("whole", "parts")]
    assert_same_trees(found[1].params, found[0].params)
    assert list(found[0].params) == ["value_head"]
    assert found[0].config == ValueConfig(policy.config, "vocab", 3, states="policy")
    assert np.any(np.asarray(found[0].params["value_head"]["up"]["weight"]))  # which began at zero
    assert set(files(tmp_path / "whole" / "best")) == {"value_head.safetensors", "value_model.json"}
    names = {path.name for path in (tmp_path / "whole" / "checkpoints").rglob("*")}
    assert not any("lora" in name or "layers" in name for name in names)
    with pytest.raises(ValueError, match=r"the head was trained on other weights .*pass the backbone"):
        sia_jax.load_value_model(tmp_path / "whole" / "best", save_tiny_policy(tmp_path / "other", seed=1))


def test_prompts_that_the_policy_is_not_given_are_told_to_whoever_trains_on_its_states(
    folders, tmp_path, capsys
):
    tokenizer = save_qwen3_tokenizer(tmp_path / "tokenizer")
    policy = save_tiny_policy(tmp_path / "base", vocab_size=352, num_layers=1, tokenizer=tokenizer)
    messages = ({"role": "user", "content": "Hot?"}, {"role": "assistant", "content": "No."})
    own = np.array(policy.prompt_ids(messages[:1]), np.int32)
    for name, ids in (("policy's", own), ("other", own[:-1])):
        reply = np.arange(5, dtype=np.int32)
        records = [Record(f"r{i}", f"g{i}", messages, ids, reply, float(i)) for i in range(8)]
        write_records(tmp_path / "data" / name, records, {})
        data = tmp_path / "data" / name, tmp_path / "base"
        train(data, tmp_path / name, max_steps=1, row_length=64, **STATES)
        said = " ".join(capsys.readouterr().err.split())
        assert ("not as base is given them" in said) == (name == "other")
        assert "markup" not in json.loads((tmp_path / name / "last" / "value_model.json").read_text())
    train(data, tmp_path / "adapter", max_steps=1, row_length=64)
    assert "given them" not in capsys.readouterr().err
