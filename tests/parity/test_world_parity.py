"""The embedded models load with transformers and peft, and give our numbers there."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.numpy import load_file

import sia_jax
from sia_jax.world.files import world_models
from sia_jax.world.grammar import sample_reply
from sia_jax.world.prompts import FAMILIES, prompts
from sia_jax.world.streams import stream
from tests.support.compare import TOLERANCE

MODELS = world_models()
CONVERSATIONS = [
    [*prompt.messages, {"role": "assistant", "content": sample_reply(prompt, stream(0, "parity", prompt.id))}]
    for family in FAMILIES
    for prompt in prompts("test", family)[:2]
]

TorchModel = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(MODELS / "policy")


@pytest.fixture(scope="module")
def policy() -> sia_jax.Policy:
    return sia_jax.load_policy(MODELS / "policy")


def load_policy(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def hidden_states(folder: Path, base: Path, ids: list[int]) -> np.ndarray:
    """After the final norm, of the base with a value model's adapter."""
    model = PeftModel.from_pretrained(load_policy(base), folder / "lora_weights").eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return out.hidden_states[-1][0].numpy()


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.ptp(theirs) > 0.1
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def values(model: sia_jax.ValueModel, ids: list[int]) -> np.ndarray:
    return np.asarray(model.values([ids], [len(ids)]))[0]


def test_both_read_the_same_ids(tokenizer, policy):
    for conversation in CONVERSATIONS:
        theirs = tokenizer.apply_chat_template(
            conversation[:-1], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert theirs == policy.prompt_ids(conversation[:-1])


def test_the_policys_logits_are_those_of_transformers(tokenizer, policy):
    model = load_policy(MODELS / "policy")
    for conversation in CONVERSATIONS:
        ids = tokenizer.apply_chat_template(conversation, return_dict=True)["input_ids"]
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0].numpy()
        assert_close(np.asarray(policy.logits([ids], [len(ids)]))[0], theirs)


def test_the_best_tokens_are_those_of_transformers(policy):
    model = load_policy(MODELS / "policy")
    config = sia_jax.SamplerConfig(policy=policy.config, max_new_tokens=32)
    for conversation in CONVERSATIONS[::2]:
        ids = policy.prompt_ids(conversation[:-1])
        samples = sia_jax.sample(
            sia_jax.SteeringParams(policy.params, None),
            sia_jax.Prompt.pack([ids], policy_length=48),
            np.inf,
            rng_key=jax.random.key(0),
            config=config,
            knobs=sia_jax.Knobs(temperature=0.0, stop_ids=np.array(policy.config.eos_token_ids, np.int32)),
        )
        with torch.no_grad():
            theirs = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=32)[0, len(ids) :]
        assert np.asarray(samples.tokens)[0, : int(samples.lengths[0])].tolist() == theirs.tolist()


def test_the_reward_models_rewards_are_those_of_transformers(tokenizer):
    reward = sia_jax.load_reward_model(MODELS / "reward")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        MODELS / "reward", dtype="float32"
    ).eval()
    ours, theirs = [], []
    for conversation in CONVERSATIONS:
        ids = tokenizer.apply_chat_template(conversation, return_dict=True)["input_ids"]
        assert ids == reward.conversation_ids(conversation)
        ours.append(float(reward.score([ids], [len(ids)])[0]))
        with torch.no_grad():
            theirs.append(float(model(torch.tensor([ids])).logits[0, 0]))
    assert_close(np.array(ours), np.array(theirs))


@pytest.mark.parametrize("name", ["value", "value-token"])
def test_the_value_models_in_the_official_layout_are_read_by_peft(name, tokenizer, policy):
    folder = MODELS / name
    saved = torch.load(folder / "token_reward_head.pt", weights_only=True)
    head = {name: tensor.numpy() for name, tensor in saved["token_reward_head"].items()}
    model = sia_jax.load_value_model(folder, policy)
    for conversation in CONVERSATIONS:
        ids = tokenizer.apply_chat_template(conversation, return_dict=True)["input_ids"]
        hidden = hidden_states(folder, MODELS / "policy", ids)
        assert_close(values(model, ids), hidden @ head["weight"][0] + head["bias"][0])


def test_the_vocab_head_gives_the_values_of_its_tensors_over_pefts_hidden_states(tokenizer, policy):
    folder = MODELS / "value-vocab"
    head = load_file(folder / "value_head.safetensors")
    model = sia_jax.load_value_model(folder, policy)
    ids = tokenizer.apply_chat_template(CONVERSATIONS[0], return_dict=True)["input_ids"]
    hidden = hidden_states(folder, MODELS / "policy", ids)
    assert_close(values(model, ids), hidden @ head["down.weight"].T @ head["up.weight"].T + head["up.bias"])


def test_the_small_value_model_brings_a_backbone_that_transformers_loads(tokenizer):
    folder = MODELS / "value-small"
    head = load_file(folder / "value_head.safetensors")
    model = sia_jax.load_value_model(folder)
    ids = tokenizer.apply_chat_template(CONVERSATIONS[1], return_dict=True)["input_ids"]
    hidden = hidden_states(folder, folder / "backbone", ids)
    assert_close(values(model, ids), hidden @ head["weight"][0] + head["bias"][0])
