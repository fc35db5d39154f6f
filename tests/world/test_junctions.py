from collections import Counter
from itertools import product

import numpy as np
import pytest

from sia_jax.world.junctions import (
    best_branch,
    following,
    sampling,
    style,
    value,
    worst_branch,
    write,
    write_all,
)
from sia_jax.world.streams import draw, shuffled, stream

END = style("end", "bye.", "so long.")
TOY = (
    style("hello", "well.", "I see."),
    value("say", (3, ("yes", ",", "do.", END)), (1, ("no.", value("why", (1, "bad."), (1, "sad."))))),
)


def test_sentences_are_capitalised_and_joined_and_every_junction_is_recorded():
    written = write(TOY, best_branch)
    assert written.text == "Well. Yes, do. Bye."
    assert [(t.name, t.kind, t.branch, t.branches) for t in written.taken] == [
        ("hello", "style", 0, 2),
        ("say", "value", 0, 2),
        ("end", "style", 0, 2),
    ]
    assert [written.text[: t.start] for t in written.taken] == ["", "Well.", "Well. Yes, do."]


def test_write_all_takes_every_way_through_the_junctions_of_a_kind_once():
    assert [w.text for w in write_all(TOY)] == ["Well. Yes, do. Bye.", "Well. No. Bad.", "Well. No. Sad."]
    styles = [w.text for w in write_all(TOY, "style")]
    assert sorted(styles) == sorted(
        f"{hello} Yes, do. {end}" for hello, end in product(("Well.", "I see."), ("Bye.", "So long."))
    )
    assert [w.text for w in write_all("nothing to choose.")] == ["Nothing to choose."]


def test_branches_can_be_named_and_the_worst_way_is_marked():
    assert write(TOY, following({"hello": 1, "say": 1, "why": 1})).text == "I see. No. Sad."
    assert write(TOY, worst_branch).text == "Well. No. Sad."
    assert write(value("v", (1, "a."), (1, "b."), (1, "c."), worst=1), worst_branch).text == "B."


def test_branches_are_sampled_in_proportion_to_their_weights():
    rng = np.random.default_rng(0)
    counts = Counter(write(TOY, sampling(rng)).text.count("Yes") for _ in range(4000))
    assert abs(counts[1] / 4000 - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5


def test_draws_follow_their_weights_and_never_take_an_impossible_branch():
    rng = stream(3, "draws")
    counts = Counter(draw(rng, [1, 0, 2, 0]) for _ in range(3000))
    assert set(counts) == {0, 2}
    assert abs(counts[2] / 3000 - 2 / 3) < 4 * (2 / 9 / 3000) ** 0.5


def test_streams_depend_on_the_seed_and_on_every_name_and_on_nothing_else():
    first = [stream(seed, *names).random() for seed, names in [(0, ("a", 1)), (1, ("a", 1)), (0, ("a", 2))]]
    assert len(set(first)) == 3
    assert first[0] == stream(0, "a", 1).random()
    assert sorted(shuffled(stream(0, "s"), "abcdef")) == list("abcdef")
    with pytest.raises(ValueError, match="0 or more, got -1"):
        stream(-1, "a")
