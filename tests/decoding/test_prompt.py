"""Prompts from lists of ids: padded on the right, checked row by row."""

import numpy as np
import pytest

from sia_jax import Prompt
from sia_jax.models.passes import bucket_length


def test_rows_are_padded_on_the_right_and_have_their_own_lengths():
    prompt = Prompt.pack([[5, 6, 7], [8]], [[1], [2, 3]], policy_length=4, value_length=2)
    np.testing.assert_array_equal(prompt.policy_ids, [[5, 6, 7, 0], [8, 0, 0, 0]])
    np.testing.assert_array_equal(prompt.policy_lengths, [3, 1])
    np.testing.assert_array_equal(prompt.value_ids, [[1, 0], [2, 3]])
    np.testing.assert_array_equal(prompt.value_lengths, [1, 2])
    assert prompt.rows == 2
    for array in (prompt.policy_ids, prompt.policy_lengths, prompt.value_ids, prompt.value_lengths):
        assert array.dtype == np.int32


def test_the_value_model_has_the_policys_prompts_by_default():
    prompt = Prompt.pack([[5, 6, 7], [8]], policy_length=4, value_length=8)
    assert prompt.value_ids.shape == (2, 8)
    np.testing.assert_array_equal(prompt.value_ids[:, :4], prompt.policy_ids)
    np.testing.assert_array_equal(prompt.value_lengths, prompt.policy_lengths)


@pytest.mark.parametrize("longest", [1, 16, 17, 100])
def test_without_a_length_the_buffer_is_a_bucket_for_the_longest(longest):
    prompt = Prompt.pack([[1], [1] * longest], [[1], [1]])
    assert prompt.policy_ids.shape[1] == bucket_length(longest) >= longest
    assert prompt.value_ids.shape[1] == bucket_length(1)


def test_a_prompt_may_fill_its_buffer():
    prompt = Prompt.pack([[5, 6, 7]], policy_length=3)
    np.testing.assert_array_equal(prompt.policy_ids, [[5, 6, 7]])


def test_arrays_tuples_and_numpy_integers_are_lists_too():
    expected = Prompt.pack([[5, 6], [7]])
    for rows in ([np.array([5, 6]), np.array([7], np.int64)], ((5, 6), (7,)), [[np.int64(5), 6], [7]]):
        np.testing.assert_array_equal(Prompt.pack(rows).policy_ids, expected.policy_ids)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "telling"),
    [
        (([[5], []],), {}, ValueError, ["policy prompt 1", "empty", "BOS"]),
        (([[5], [6]], [[], [6]]), {}, ValueError, ["value prompt 0", "empty"]),
        (([],), {}, ValueError, ["at least one", "0 policy prompts"]),
        (([[5], [6]], [[5]]), {}, ValueError, ["2 policy prompts", "1 value prompts"]),
        (
            ([[5], [6, 7, 8]],),
            {"policy_length": 2},
            ValueError,
            ["policy prompts", "in 2 ids", "(1, 3)", "cut", "policy_length"],
        ),
        (
            ([[5]], [[6, 7, 8]]),
            {"value_length": 2},
            ValueError,
            ["value prompts", "(0, 3)", "value_length"],
        ),
        (([[5, -1]],), {}, ValueError, ["policy prompts", "from 0 on", "-1"]),
        (([[5, 2**31]],), {}, ValueError, ["policy prompts", str(2**31)]),
        (([[5.0]],), {}, TypeError, ["policy prompt 0", "integer", "float64"]),
        (([[5]], [["a"]]), {}, TypeError, ["value prompt 0", "integer"]),
        (([[[5]]],), {}, TypeError, ["policy prompt 0", "(1, 1)"]),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_row_and_the_remedy(arguments, options, error, telling):
    with pytest.raises(error) as caught:
        Prompt.pack(*arguments, **options)
    for part in telling:
        assert part in str(caught.value)
