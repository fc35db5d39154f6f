"""Rows that hold the beginning of a prompt say what `sample` says of the whole, and read the rest alone."""

import functools
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.decoding import window as programs
from sia_jax.decoding.state import FinishReason
from sia_jax.models import attention
from sia_jax.parallel.mesh import make_mesh
from tests.decoding.test_over_a_mesh import placed
from tests.decoding.test_rows import ROWS, requests, with_nan
from tests.decoding.test_rows import models as short_models
from tests.support.living import Request, Rows, Said, assert_same, packed, sampled
from tests.support.marks import long

pytestmark = pytest.mark.optimised

LENGTH, WIDTHS = 8, (32, 32)
TURNS = ((1.0, np.inf, -np.inf), (np.inf, np.inf, 1.0), (-np.inf, 1.0, np.inf), (1.2, -np.inf, 1.2))
"""Thresholds of the turns of each conversation."""


@functools.cache
def models(head: str) -> tuple[sia_jax.SteeringParams, sia_jax.SamplerConfig]:
    params, config = short_models(head)
    return params, replace(config, max_new_tokens=LENGTH)


def living(head: str = "scalar") -> Rows:
    return Rows(*models(head), ROWS, WIDTHS)


def spread(shape: tuple[int, int, int]) -> Rows:
    params, config = models("scalar")
    mesh = make_mesh(*shape)
    return Rows(placed(params, mesh), replace(config, mesh=mesh), ROWS, WIDTHS)


def next_turn(one: Request, said: Said, seed: int, threshold: float) -> Request:
    """The conversation so far, as each model sees it, and something new."""
    rng, reply = np.random.default_rng(seed), tuple(said.record.tokens[: said.length].tolist())
    new, value_new = (tuple(rng.integers(4, 64, rng.integers(1, 5)).tolist()) for _ in range(2))
    return Request(
        one.policy_ids + reply + new, one.value_ids + reply + value_new, seed, threshold, one.knobs
    )


def kept(report: programs.Report, row: int, before: Request, said: Said, one: Request) -> tuple[int, int]:
    """What the row holds of a request, of policy and value model."""
    reply = said.record.tokens[: said.length].tolist()
    return (
        programs.keepable(report.policy_held[row], [*before.policy_ids, *reply], one.policy_ids),
        programs.keepable(report.value_held[row], [*before.value_ids, *reply], one.value_ids),
    )


def ended(rows: Rows) -> programs.Report:
    """The report of the window after which no row runs."""
    while rows.holds:
        report = rows.window(8)
    return report


def converse(rows: Rows) -> tuple[dict[int, Request], list[tuple[int, int]]]:
    """Conversations in rows 0 .. 3, others' requests in two more. All by number, and what was left unread.

    Turn t of conversation i has number 10 t + i, and begins as soon as the one before has ended.
    """
    first = {i: replace(requests()[i], threshold=turns[0]) for i, turns in enumerate(TURNS)}
    first |= {6: requests()[6], 7: requests()[7]}
    rows.admit({i: (i, one) for i, one in first.items()})
    asked, lags, turn = dict(first), [], dict.fromkeys(range(len(TURNS)), 0)
    while rows.holds:
        report = rows.window(3)
        coming = {}
        for i, t in turn.items():
            if i in rows.holds or t == 2:
                continue
            before, said = asked[10 * t + i], rows.replies[10 * t + i]
            assert report.policy_held[i] == len(before.policy_ids) + said.length - 1
            one = next_turn(before, said, 100 + 10 * t + i, TURNS[i][t + 1])
            coming[i] = 10 * (t + 1) + i, one, kept(report, i, before, said, one)
            asked[10 * (t + 1) + i], turn[i] = one, t + 1
            lags.append((len(one.policy_ids) - coming[i][2][0], len(one.value_ids) - coming[i][2][1]))
        for steered in (True, False):
            some = {i: one for i, one in coming.items() if (one[1].threshold < np.inf) == steered}
            if some:
                rows.extend(some, read_values=steered)
    return asked, lags


@functools.cache
def conversations(head: str) -> tuple[Rows, dict[int, Request], list[tuple[int, int]]]:
    rows = living(head)
    return rows, *converse(rows)


@pytest.mark.parametrize("head", ["scalar", long("vocab"), long("shared"), long("look-ahead")])
def test_turns_of_a_conversation_get_the_replies_of_sample_to_all_that_was_said(head):
    rows, asked, lags = conversations(head)
    numbers = sorted(asked)
    assert len(numbers) == 3 * len(TURNS) + 2
    whole = sampled(*models(head), [asked[n] for n in numbers], WIDTHS)
    for number, one in zip(numbers, whole, strict=True):
        assert_same(rows.replies[number], one)
    assert max(policy for policy, _ in lags) <= 5, "the policy reads its last token and what is new"
    assert max(value for _, value in lags) > 5 + LENGTH, "the value model lags a whole turn behind"
    assert {x.record.junction.mean() for x in whole} - {0, 1}, "some are steered here and there"


@pytest.mark.long
def test_a_conversation_on_a_mesh_is_that_on_one_device(monkeypatch):
    monkeypatch.setitem(attention.BLOCK, "cpu", 16)  # prompts are read in blocks, too
    rows = spread((2, 2, 2))
    asked, _ = converse(rows)
    alone, same, _ = conversations("scalar")
    assert asked == same
    for number in asked:
        assert_same(rows.replies[number], alone.replies[number])


def talked() -> tuple[Rows, dict[int, Request], programs.Report]:
    """Rows that have all ended, and what is asked of them next."""
    rows = living()
    rows.admit({i: (i, one) for i, one in enumerate(requests()[:ROWS])})
    report = ended(rows)
    later = (1.0, -np.inf, np.inf, 1.2)
    return (
        rows,
        {i: next_turn(one, rows.replies[i], 50 + i, later[i % 4]) for i, one in enumerate(requests()[:ROWS])},
        report,
    )


def leaves(state: sia_jax.decoding.state.DecodeState) -> list[np.ndarray]:
    """All but the caches and the counts."""
    bare = replace(state, policy_cache=None, value_cache=None, policy_computed=0, value_computed=0)
    return [np.array(x) for x in jax.tree.leaves(bare)]


def test_a_row_begins_anew_as_if_the_whole_had_been_admitted_and_may_keep_less_than_it_holds():
    rows, asked, report = talked()
    most = {i: kept(report, i, requests()[i], rows.replies[i], one) for i, one in asked.items()}
    less = {i: (min(i, a), min(2 * i, b)) for i, (a, b) in most.items()}
    assert less[0] == (0, 0)
    assert sum(less[i] < most[i] for i in asked) > 4
    rows.extend({i: (20 + i, one, less[i]) for i, one in asked.items()})
    fresh = living()
    fresh.admit({i: (i, one) for i, one in asked.items()})
    for one, other in zip(leaves(rows.state), leaves(fresh.state), strict=True):
        np.testing.assert_array_equal(one, other)
    ended(rows), ended(fresh)
    for i in asked:
        assert_same(rows.replies[20 + i], fresh.replies[i])


def test_other_rows_and_padding_feel_nothing_of_it():
    others = {i: (i, requests()[i]) for i in (0, 1, 2)}
    alone = living()
    alone.admit(others | {5: (5, requests()[5])})
    ended(alone)
    rows = living()
    rows.admit({5: (5, requests()[5])})
    report = ended(rows)
    one = next_turn(requests()[5], rows.replies[5], 9, 1.0)
    rows.admit(others)
    rows.window(2)
    rows.extend({5: (15, one, kept(report, 5, requests()[5], rows.replies[5], one))})
    rows.window(1)
    before = [np.array(x) for x in jax.tree.leaves(rows.state)]
    rows.extend({})
    after = [np.array(x) for x in jax.tree.leaves(rows.state)]
    changed = [(x, y) for x, y in zip(before, after, strict=True) if x.tobytes() != y.tobytes()]
    assert [int(y - x) for x, y in changed] == [ROWS * width for width in WIDTHS], (
        "it is counted, and that is all"
    )
    ended(rows)
    for i in others:
        assert_same(rows.replies[i], alone.replies[i], exact=True)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["one row", "no value model", "candidates"])
def test_other_kinds_of_rows_go_on_with_a_conversation(kind):
    params, config = models("scalar")
    threshold = 1.0
    if kind == "no value model":
        params, config, threshold = replace(params, value=None), replace(config, value=None), np.inf
    if kind == "candidates":
        config = replace(config, record="candidates")
    rows = Rows(params, config, 1 if kind == "one row" else ROWS, WIDTHS)
    first = replace(requests()[0], threshold=threshold)
    rows.admit({0: (0, first)})
    report = ended(rows)
    one = next_turn(first, rows.replies[0], 30, threshold)
    most = kept(report, 0, first, rows.replies[0], one)
    assert (most[1] > 0) == (kind != "no value model")
    rows.extend({0: (1, one, most)})
    ended(rows)
    for number, said in enumerate(sampled(params, config, [first, one], WIDTHS)):
        assert_same(rows.replies[number], said)


def test_a_nan_behind_what_is_read_is_gone():
    params, _ = models("scalar")
    rows = living()
    rows.params = with_nan(params, 60, "policy")
    first = Request((5, 6, 7, *[8] * 22, 60), (5, 6, 7, 8), 0, np.inf)
    rows.admit({2: (0, first)})
    report = rows.window(0, cancel=[2])
    assert (report.policy_held[2], report.value_held[2]) == (25, 4)
    rows.params = params
    one = Request((5, 6, 7, 9, 10), (5, 6, 7, 8, 9), 1, 1.0)
    rows.admit({3: (1, one)})
    rows.widths = 16, 32  # padding would overwrite it
    count = programs.keepable(report.policy_held[2], first.policy_ids, one.policy_ids)
    rows.extend({2: (2, one, (count, 4))})
    ended(rows)
    assert_same(rows.replies[2], rows.replies[1])


def test_a_report_says_what_may_be_kept():
    params, _ = models("scalar")
    rows = living()
    rows.params = with_nan(params, 60, "policy")
    fails, plain = Request((5, 60), (5, 6), 0, np.inf), Request((5, 6), (5, 6, 7), 0, np.inf)
    report = rows.window(0)
    assert not report.policy_held.any()
    assert not report.value_held.any()
    rows.admit({0: (0, fails)})
    rows.admit({1: (1, plain)}, read_values=False)
    rows.admit({2: (2, plain)})
    report = ended(rows)
    assert rows.replies[0].finish_reason == FinishReason.NON_FINITE
    said = rows.replies[1].length
    assert report.policy_held[:3].tolist() == [0, 1 + said, 1 + said]
    assert report.value_held[:3].tolist() == [0, 0, 3]


@pytest.mark.parametrize(
    ("held", "ids", "prompt", "count"),
    [
        (5, [1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 8], 3),
        (2, [1, 2, 3], [1, 2, 3, 4], 2),
        (2, [1, 2, 3], [1, 2], 1),
        (3, [1, 2, 3, 4], [2, 2, 3, 4], 0),
        (0, [], [1], 0),
    ],
)
def test_what_is_keepable_is_held_and_alike_and_leaves_one_id(held, ids, prompt, count):
    assert programs.keepable(held, ids, prompt) == count


@pytest.mark.parametrize("shape", [None, long((2, 2, 2))])
def test_the_state_is_taken_over_whole_and_no_cache_is_copied(shape):
    rows = spread(shape) if shape else living()
    # One entry a group of devices, so that no block of rows has the shape of a cache.
    prompts, numbers = packed([requests()[0]] * rows.config.row_groups, rows.config, WIDTHS)
    which = jnp.arange(rows.config.row_groups)
    arguments = rows.params, rows.state, which, which, which, prompts, numbers
    text = programs._extend.lower(*arguments, config=rows.config, read_values=True).compile().as_text()
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry", text)
    assert aliases
    assert aliases[1].count("alias)") == len(jax.tree.leaves(rows.state))
    for cache in (rows.state.policy_cache, rows.state.value_cache):
        for array in (cache.keys[0], cache.values[0]):
            size = ",".join(map(str, array.addressable_shards[0].data.shape))
            assert not re.search(rf"f32\[{size}\]\S* copy\(", text)


def refused(**changes):
    rows = living()
    prompts, numbers = packed([requests()[0]] * ROWS, rows.config, WIDTHS)
    given = {"rows": np.arange(ROWS), "kept": [4] * ROWS, "value_kept": [0] * ROWS}
    given |= {"prompts": prompts, "numbers": numbers} | changes
    programs.extend(rows.params, rows.state, config=rows.config, **given)


def test_what_cannot_be_extended_is_refused():
    with pytest.raises(ValueError, match=r"kept must have a number for each of 8 entries, got \(3,\)"):
        refused(kept=[4] * 3)
    with pytest.raises(
        ValueError, match=r"value_kept must be at least 0 .*\(entry, kept, left\) \[\(2, -1, "
    ):
        refused(value_kept=[0, 0, -1, 0, 0, 0, 0, 0])
    prompts, _ = packed([requests()[0]] * ROWS, models("scalar")[1].resolve(ROWS), WIDTHS)
    nothing = replace(prompts, policy_lengths=jnp.zeros(ROWS, jnp.int32))
    with pytest.raises(ValueError, match=r"kept must be at least 0 and leave .*\[\(0, 4, 0\), "):
        refused(prompts=nothing)
    with pytest.raises(
        ValueError, match=r"policy prompt and reply must fit into a row of 40 tokens, got .*4"
    ):
        refused(kept=[39] * ROWS)
    with pytest.raises(ValueError, match=r"threshold of \+inf"):
        refused(read_values=False)
    wide = sia_jax.Prompt.pack([[5]] * ROWS, policy_length=48, value_length=8)
    with pytest.raises(ValueError, match="buffers of 48 ids do not fit into rows of 40 tokens"):
        refused(prompts=wide)
