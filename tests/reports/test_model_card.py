"""Model cards of value models: the Hub's own parser reads what was said, whatever was said."""

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id

from sia_jax.reports.model_card import CARD, TAGS, Metric, ValueCard, check_licence, hub_id, write_card

CARD_OF_ONE = ValueCard(
    name="round 2",
    policy="Qwen/Qwen3-1.7B",
    fingerprint="0123456789abcdef0123",
    data=("240 replies.",),
    reward="reward model skywork",
    metrics=(
        Metric("reward of the steered policy", "reward", 1.25, "1.250 [1.100, 1.400]", "v.jsonl, 40 prompts"),
        Metric("R2 of the mean value", "r2", 0.5, "0.500", "held-out prompts"),
    ),
    steering="threshold 1.2, beta 1",
    command="sia train iterate --policy Qwen/Qwen3-1.7B",
    made_by="commit `0123`, jax 0.10.2",
    licence="apache-2.0",
)


def test_the_hubs_parser_reads_every_key(tmp_path):
    write_card(CARD_OF_ONE, tmp_path)
    found = ModelCard.load(tmp_path / CARD).data
    assert (found.base_model, found.library_name, found.license) == (
        "Qwen/Qwen3-1.7B",
        "sia_jax",
        "apache-2.0",
    )
    assert (found.tags, found.metrics, found.model_name) == (list(TAGS), ["reward", "r2"], "round 2")
    validate_repo_id(found.base_model)
    results = [
        (one.task_type, one.dataset_name, one.metric_type, one.metric_name, one.metric_value)
        for one in found.eval_results
    ]
    assert results == [
        ("text-generation", one.prompts, one.kind, one.name, one.value) for one in CARD_OF_ONE.metrics
    ]


def test_the_body_says_policy_reward_thresholds_data_metrics_and_licence(tmp_path):
    write_card(CARD_OF_ONE, tmp_path)
    text = ModelCard.load(tmp_path / CARD).text
    for said in (
        *(
            "`Qwen3-1.7B`",
            "`0123456789abcdef`",
            "reward model skywork",
            "threshold 1.2, beta 1",
            "240 replies.",
        ),
        *("1.250 [1.100, 1.400]", "v.jsonl, 40 prompts", "apache-2.0", CARD_OF_ONE.command, "jax 0.10.2"),
    ):
        assert said in text, said


@pytest.mark.parametrize(
    "name", ["a: b # c", '"quoted"', "- ---\n---\nlicense: mit", "\x00\x85\u2028\x1b]0;", "卵🥚"]
)
def test_no_name_breaks_the_front_matter(name, tmp_path):
    metric = replace(CARD_OF_ONE.metrics[0], name=name, prompts=name)
    write_card(replace(CARD_OF_ONE, name=name, metrics=(metric,)), tmp_path)
    found = ModelCard.load(tmp_path / CARD).data
    assert (found.license, found.library_name, len(found.eval_results)) == ("apache-2.0", "sia_jax", 1)
    assert found.eval_results[0].metric_value == 1.25


def test_a_policy_in_a_folder_has_no_id_unless_one_is_given(tmp_path):
    (tmp_path / "policy").mkdir()
    local = replace(CARD_OF_ONE, policy=str(tmp_path / "policy"), licence=None, metrics=())
    write_card(local, tmp_path)
    found = ModelCard.load(tmp_path / CARD).data
    assert (found.base_model, found.license, found.metrics) == (None, None, None)
    assert "Not stated" in (tmp_path / CARD).read_text()
    write_card(replace(local, base_model="me/policy"), tmp_path)
    assert ModelCard.load(tmp_path / CARD).data.base_model == "me/policy"


def test_an_id_is_that_of_the_repository():
    assert hub_id("Qwen/Qwen3-1.7B/policy") == "Qwen/Qwen3-1.7B"
    assert hub_id("gpt2") == "gpt2"
    assert hub_id("/no/such/folder") is None


@pytest.mark.parametrize("licence", ["Apache 2.0", "", "a: b", "x\n"])
def test_what_is_no_identifier_of_a_licence_is_refused(licence):
    with pytest.raises(ValueError, match="--license must be an identifier"):
        check_licence(licence, "--license")
