"""What a second language model says of replies, against the float64 network and the policy itself."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.evaluation.fluency import FluencyScorer
from sia_jax.text.forms import settle
from sia_jax.text.token_ids import with_tokens
from sia_jax.text.tokenizer import exact_ids
from tests.support.checkpoints import tiny_policy
from tests.support.oracle_network import NumpyModel
from tests.support.tokenizers import save_llama3_tokenizer, save_qwen3_tokenizer

SIZES = {"vocab_size": 352, "num_layers": 1, "bos_token_id": None, "max_position_embeddings": 160}
PROMPT = [{"role": "user", "content": "Hello?"}]
TEXTS = ("Yes.", "", "A cup of tea, and then some.", "ab " * 20, "No", "tea " * 200)


def model_of(folder: Path, family: str = "qwen3") -> sia_jax.Policy:
    tokenizer = (save_qwen3_tokenizer if family == "qwen3" else save_llama3_tokenizer)(folder)
    policy = tiny_policy(family, tokenizer=tokenizer, **SIZES)
    return replace(policy, config=with_tokens(policy.config, tokenizer))


def scorer_of(model: sia_jax.Policy, told: list[str] | None = None) -> FluencyScorer:
    def aside(what: str) -> Any:
        (told if told is not None else []).append(what)
        return nullcontext()

    return FluencyScorer(model, settle(model.name, model.tokenizer), aside)


def said(*texts: str) -> list[Any]:
    return [SimpleNamespace(text=text) for text in texts]


def written_out(model: sia_jax.Policy, prompt: list[int], text: list[int]) -> float:
    """sum_t log softmax(m)_{y_t} over the ids that have a token, one prefix at a time in float64."""
    network, known, total = NumpyModel(model.params, model.config), model.config.num_tokens, 0.0
    assert known is not None
    assert not model.config.unused_ids
    for t, token in enumerate(text):
        logits = network.logits([*prompt, *text[:t]])[:known]
        total += logits[token] - logits.max() - math.log(np.exp(logits - logits.max()).sum())
    return total


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_a_texts_number_is_that_of_the_float64_network_behind_the_models_own_prompt(
    family: str, tmp_path: Path
) -> None:
    model = model_of(tmp_path, family)
    found = scorer_of(model).score([PROMPT] * len(TEXTS), said(*TEXTS))
    prompt = model.prompt_ids(PROMPT)
    for text, own in zip(TEXTS, found, strict=True):
        ids = exact_ids(model.tokenizer, text)
        assert own.tokens == len(ids)
        if len(prompt) + len(ids) > 160:
            assert own.logprob is None
            assert own.why == f"{len(prompt) + len(ids)} tokens, at most 160"
            continue
        assert own.why == ""
        assert own.logprob == pytest.approx(written_out(model, prompt, ids), rel=1e-4, abs=1e-5)
    assert found[1].logprob == 0
    assert found[-1].logprob is None
    assert sum(own.logprob is not None for own in found) >= 4


def test_a_text_has_the_same_bits_whatever_else_there_is_and_each_length_is_compiled_once(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    model = model_of(tmp_path)
    scorer = scorer_of(model, told)
    together = scorer.score([PROMPT] * len(TEXTS), said(*TEXTS))
    lengths = [what.rpartition("up to ")[2] for what in told]
    assert len(lengths) == len(set(lengths)) > 1
    for text, own in zip(TEXTS, together, strict=True):
        assert scorer.score([PROMPT], said(text)) == [own]
    assert len(told) == len(lengths)


def test_the_same_model_as_the_policy_gives_what_the_policy_recorded_where_tokens_agree(
    tmp_path: Path,
) -> None:
    """But for the token that ends a reply, which is none of its text."""
    model = model_of(tmp_path)
    ends = tuple(range(40, 52))
    policy = replace(model, config=replace(model.config, eos_token_ids=ends))
    with sia_jax.Engine(policy, rows=32, max_length=64) as engine:
        requests = [sia_jax.Request(messages=PROMPT, seed=seed, max_new_tokens=3) for seed in range(96)]
        replies = engine.generate(requests)
    agreeing = []
    for reply in replies:
        ended = reply.finish_reason == sia_jax.FinishReason.STOP
        tokens = reply.tokens[: len(reply.tokens) - ended]
        if len(tokens) and exact_ids(policy.tokenizer, reply.text) == tokens.tolist():
            agreeing.append((reply, reply.policy_logprob[: len(tokens)]))
    assert len(agreeing) > 10
    found = scorer_of(policy).score([PROMPT] * len(agreeing), said(*(reply.text for reply, _ in agreeing)))
    for own, (_, logprobs) in zip(found, agreeing, strict=True):
        assert own.tokens == len(logprobs)
        assert own.logprob == pytest.approx(float(np.sum(logprobs, dtype=np.float64)), rel=1e-4, abs=1e-4)


def test_what_the_model_cannot_read_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    tokenizer = save_qwen3_tokenizer(tmp_path)
    refusal = "{% if 'bad' in messages[-1].content %}{{ raise_exception('no such word') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    model = tiny_policy(tokenizer=tokenizer, **SIZES)
    prompts = [PROMPT, [{"role": "user", "content": "a bad one"}]]
    found = scorer_of(model).score(prompts, said("Yes.", "Yes."))
    assert found[0].logprob is not None
    assert found[1].logprob is None
    assert "no such word" in found[1].why
    assert found[1].to_json() == {
        "fluency_logprob": None,
        "fluency_tokens": found[1].tokens,
        "fluency_unscored": found[1].why,
    }
    assert found[0].to_json() == {"fluency_logprob": found[0].logprob, "fluency_tokens": found[0].tokens}
    narrow = replace(model, config=replace(model.config, vocab_size=340))
    (beyond,) = scorer_of(narrow).score([PROMPT], said("<think>"))
    assert beyond.logprob is None
    assert beyond.why.endswith("and the model knows 0 .. 339")
    broken = {
        **model.params,
        "lm_head": {"weight": jnp.full_like(model.params["lm_head"]["weight"], jnp.nan)},
    }
    (lost,) = scorer_of(replace(model, params=broken)).score([PROMPT], said("Yes."))
    assert (lost.logprob, lost.why) == (None, "the log-probability is nan")
