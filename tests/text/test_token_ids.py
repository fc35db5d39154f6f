"""Which ids have a token is read from the tokenizer, and no other id is ever drawn."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import sia_jax
from sia_jax.text.token_ids import num_tokens, with_tokens
from tests.support.checkpoints import save_tiny_policy, tiny_config

VOCAB = 64
KNOWN = (*range(3, 20), 30, *range(32, 40), 57)  # ids with a token; 0 .. 2, 20 .. 29, 31, 40 .. 56 have none


class Ids:
    """All of a tokenizer that is asked for."""

    name_or_path = "own"

    def __init__(self, ids):
        self._vocab = {f"word{i}": i for i in ids}

    def get_vocab(self):
        return self._vocab


@given(st.sets(st.integers(0, 200), min_size=1))
def test_the_ids_that_count_as_having_a_token_are_those_of_the_tokenizer(ids):
    within = {i for i in ids if i < VOCAB}
    assert num_tokens(Ids(ids)) == max(ids) + 1
    if not within:
        with pytest.raises(ValueError, match=r"no token in the vocabulary's 0 \.\. 63; it is another"):
            with_tokens(tiny_config(), Ids(ids))
        return
    config = with_tokens(tiny_config(), Ids(ids))
    holes = {i for first, end in config.unused_ids for i in range(first, end)}
    assert set(range(config.num_tokens)) - holes == within
    assert config.network == tiny_config()


def test_without_a_tokenizer_every_id_counts():
    assert with_tokens(tiny_config(), None) == tiny_config()
    assert sia_jax.SamplerConfig(policy=tiny_config()).real_tokens == VOCAB


@pytest.mark.parametrize("fields", [{"num_tokens": 0}, {"num_tokens": 65}, {"unused_ids": ((5, 4),)}])
def test_ids_that_cannot_be_are_refused(fields):
    with pytest.raises(ValueError, match=r"must lie in 1 \.\. 64|ranges in order"):
        tiny_config(**fields)


def save(folder: Path) -> None:
    """A policy whose tokenizer leaves ids out, and knows one for which the embedding has no row."""
    save_tiny_policy(folder, num_layers=1, vocab_size=VOCAB)
    words = Tokenizer(WordLevel({f"w{i}": i for i in (*KNOWN, VOCAB + 3)}, unk_token="w3"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w3").save_pretrained(folder)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> sia_jax.Policy:
    folder = tmp_path_factory.mktemp("padded")
    save(folder)
    return sia_jax.load_policy(folder)


def drawn(policy: sia_jax.Policy, **fields) -> tuple[np.ndarray, sia_jax.Samples]:
    """Ids that come at a temperature at which all are equally likely, of 64 replies of 24 tokens."""
    config = sia_jax.SamplerConfig(policy=policy.config, max_new_tokens=24, **fields)
    samples = sia_jax.sample(
        sia_jax.SteeringParams(policy.params),
        sia_jax.Prompt.pack([[5]] * 64),
        math.inf,
        rng_key=jax.random.key(1, impl="threefry2x32"),
        config=config,
        knobs=sia_jax.Knobs(temperature=1e4, stop_ids=[]),
    )
    return np.unique(samples.tokens), samples


def test_what_the_tokenizer_of_a_checkpoint_does_not_know_is_never_drawn(policy):
    assert sorted(i for i in policy.tokenizer.get_vocab().values() if i < VOCAB) == list(KNOWN)
    ids, samples = drawn(policy)
    assert ids.tolist() == list(KNOWN)
    assert np.asarray(samples.logprob) == pytest.approx(-math.log(len(KNOWN)), abs=0.01)


def test_a_count_that_is_given_wins(policy):
    assert drawn(policy, num_tokens=VOCAB)[0].tolist() == list(range(VOCAB))


def test_there_are_at_most_as_many_candidates_as_ids_with_a_token(policy):
    with pytest.raises(ValueError, match=f"at most {len(KNOWN)} "):
        drawn(policy, steering=sia_jax.SteeringConfig(num_candidates=len(KNOWN) + 1))
