"""The world's text in batches: the same whichever was asked for before, and pairs side by side."""

import numpy as np

from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.world.data import Practice, preference_data
from sia_jax.world.files import world_models


def test_a_batch_of_practice_is_the_same_whichever_came_before_it():
    tokenizer = load_tokenizer(world_models() / "policy")
    inorder, jumping = (Practice(tokenizer, 3, dialogues=20, size=6) for _ in range(2))
    batches = [inorder.batch(number) for number in range(3)]
    for number in (2, 0, 1):
        found = jumping.batch(number)
        assert [t.number for t in found] == list(range(6 * number, 6 * number + 6))
        for first, second in zip(found, batches[number], strict=True):
            assert first.group == second.group
            np.testing.assert_array_equal(first.reply_ids, second.reply_ids)


def test_pairs_go_into_batches_whole_and_side_by_side():
    tokenizer = load_tokenizer(world_models() / "policy")
    pairs = preference_data(tokenizer, 3, 40, 0.7)
    tokens, lengths = pairs.batch(np.array([7, 21, 30]))
    assert tokens.shape[0] == len(lengths) == 6
    for row, (side, number) in enumerate([(0, 7), (0, 21), (0, 30), (1, 7), (1, 21), (1, 30)]):
        whole = (pairs.chosen, pairs.rejected)[side][number]
        assert lengths[row] == pairs.lengths[side, number]
        np.testing.assert_array_equal(tokens[row, : lengths[row]], whole[: lengths[row]])
        assert not whole[lengths[row] :].any()
        text = tokenizer.decode(tokens[row, : lengths[row]].tolist())
        assert text.startswith("<|im_start|>user\n")
        assert text.endswith("<|im_end|>\n")
