"""Values of candidates along finished replies, against one full pass for each of them."""

import numpy as np
import pytest

from sia_jax.studies.entropy.replay import candidate_values
from tests.support.checkpoints import assert_close, tiny_policy, tiny_value_model

PROMPTS = [[5, 9, 12], [7, 3, 40, 41, 22]]
REPLIES = [[11, 13, 17, 19], [23, 29]]
C = 3


def candidates_of(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.stack([rng.permutation(64)[:C] for _ in reply]) for reply in REPLIES]


@pytest.mark.parametrize("head", ["scalar", "vocab"])
def test_each_candidate_is_valued_as_if_it_came_alone(head):
    value = tiny_value_model(tiny_policy(num_layers=1 if head == "vocab" else 2), head=head)
    candidates = candidates_of()
    found = candidate_values(value, PROMPTS, REPLIES, candidates)
    texts, places = [], []
    for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
        for t in range(len(reply)):
            for c in range(C):
                prefix = [*prompt, *reply[:t]]
                texts.append(prefix if head == "vocab" else [*prefix, int(candidates[row][t, c])])
                places.append((row, t, c))
    tokens = np.zeros((len(texts), 9), np.int32)
    for line, text in zip(tokens, texts, strict=True):
        line[: len(text)] = text
    lengths = np.array([len(text) for text in texts])
    each = np.asarray(value.values(tokens, lengths))
    last = each[np.arange(len(texts)), lengths - 1]
    assert [array.shape for array in found] == [(4, C), (2, C)]
    if head == "vocab":
        last = last[np.arange(len(texts)), [candidates[row][t, c] for row, t, c in places]]
    assert_close([found[row][t, c] for row, t, c in places], last)


def test_longer_buffers_change_nothing():
    value = tiny_value_model(tiny_policy(num_layers=2))
    found = candidate_values(value, PROMPTS, REPLIES, candidates_of())
    for one, other in zip(
        found, candidate_values(value, PROMPTS, REPLIES, candidates_of(), lengths=(7, 5)), strict=True
    ):
        assert_close(one, other)


def test_shapes_that_do_not_fit_are_refused():
    value = tiny_value_model(tiny_policy())
    with pytest.raises(ValueError, match=r"replies of T tokens"):
        candidate_values(value, PROMPTS, REPLIES, candidates_of()[::-1])
    with pytest.raises(ValueError, match="as many prompts"):
        candidate_values(value, PROMPTS[:1], REPLIES, candidates_of())
    with pytest.raises(ValueError, match="none of them empty"):
        candidate_values(value, [[], [1]], REPLIES, candidates_of())
