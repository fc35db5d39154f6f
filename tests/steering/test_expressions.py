"""Gates and tilts as text: what is read, what is said of what cannot be, and that text and tree are one."""

import contextlib
import math
from dataclasses import fields

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sia_jax.steering import gates, tilts
from sia_jax.steering.expressions import DEEPEST, LONGEST, named, parse_gate, parse_tilt, text_of
from sia_jax.steering.gates import (
    After,
    Always,
    And,
    Bernoulli,
    Budget,
    Entropy,
    EntropyRatio,
    Linear,
    LogitGap,
    Never,
    Not,
    Or,
    Position,
    Refractory,
)
from sia_jax.steering.parts import range_of
from sia_jax.steering.tilts import Additive, Advantage, Centred, Clipped, Standardised

a, b, c = Always(), Never(), Entropy()


def encode(text):
    """A tokenizer whose ids are those of Unicode."""
    return [ord(character) for character in text]


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("entropy", Entropy()),
        (" entropy( ) ", Entropy()),
        ("entropy & ~position(3)", Entropy() & ~Position(3)),
        ("position(first = 3)", Position(3)),
        ("budget(0.2) & refractory(5)", Budget(0.2) & Refractory(5)),
        ("entropy_ratio(-1.5e-3)|logit_gap(inf)", EntropyRatio(-0.0015) | LogitGap(math.inf)),
        ("entropy_ratio(-inf)", EntropyRatio(-math.inf)),
        ("linear(-1.5, 2, -0.5, 1, -1e-2, 0)", Linear(-1.5, 2, -0.5, 1, -0.01, 0)),
        (
            "linear(-inf, position=1, entropy=0, previous_entropy=0, top_probability=0, logit_gap=0)",
            Linear(-math.inf, 0, 0, 0, 0, 1),
        ),
        ("always | never & entropy", a | (b & c)),
        ("(always | never) & entropy", (a | b) & c),
        ("always & never & entropy", (a & b) & c),
        ("always & (never & entropy)", a & (b & c)),
        ("~always & never", (~a) & b),
        ("~(always & never)", ~(a & b)),
        ("~~always", ~~a),
        ("after(151668)", After((151668,))),
        ("entropy & after( 1,2 , 1)", Entropy() & After((1, 2, 1))),
        ("after(1, 2, started=1) | always", After((1, 2), started=1) | a),
        ("after(started=0, tokens=3)", After((3,))),
        ('entropy & after("</a>")', Entropy() & After((60, 47, 97, 62))),
        (r'after("\"\n\u00e9")', After((34, 10, 233))),
        ('~after("é\n", started=1)', ~After((233, 10), started=1)),
    ],
)
def test_a_gate_is_read(text, gate):
    assert parse_gate(text, encode) == gate


def test_a_marker_in_words_needs_a_tokenizer_and_one_in_ids_none():
    assert parse_gate("after(1, 2)") == After((1, 2))
    with pytest.raises(ValueError, match=r"ids, as in after\(151668\): there is no tokenizer to read a text"):
        parse_gate('entropy & after("</think>")')


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("after", 1, r"after\(tokens: ids or a text, started=0 .. 1\): tokens is missing"),
        ("after(started=1)", 1, "tokens is missing"),
        ("after(entropy)", 7, 'ids, or a text such as "</think>"'),
        ("after(2, -1)", 10, "an id, a whole number from 0 on, got -1"),
        ("after(1.5)", 7, "an id, a whole number from 0 on, got 1.5"),
        (
            "after(3000000000)",
            1,
            r"tokens of After must be one or more ids of 0 .. 2147483647, got \(3000000",
        ),
        ("after(1, started=2)", 1, "lie in 0 .. 1, got 2 in After"),
        ('after("")', 7, "a text of one token at least"),
        ('after("a", 1)', 12, "no more and no other arguments"),
        ('after(1, "a")', 10, "no more and no other arguments"),
        ('after("a)', 7, 'a name, a number, a text in ""'),
        (r'after("\q")', 7, "a text as in JSON"),
        (r'after("\ud800")', 7, "and in Unicode"),
        ('position("a")', 10, "a number for first"),
        ('"a"', 1, "a gate"),
    ],
)
def test_a_marker_that_cannot_be_read_is_told(text, column, said):
    with pytest.raises(ValueError, match=f"at column {column}: expected .*{said}"):
        parse_gate(text, encode)


@pytest.mark.parametrize(
    ("text", "tilt"),
    [
        ("additive", Additive()),
        ("clipped(2)", Clipped(2.0)),
        ("clipped(1.0, advantage)", Clipped(1.0, of=Advantage())),
        ("clipped(of=centred, bound=1)", Clipped(1.0, of=Centred())),
        ("clipped(.5, clipped(1., standardised()))", Clipped(0.5, of=Clipped(1.0, of=Standardised()))),
    ],
)
def test_a_tilt_is_read(text, tilt):
    assert parse_tilt(text) == tilt


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("", 1, "expected a gate"),
        ("entropy & positoin(3)", 11, "none called positoin"),
        ("entropy and always", 9, "expected & or | or the end"),
        ("entropy &", 10, "expected a gate"),
        ("(entropy", 9, r"expected & or \| or \)"),
        ("entropy)", 8, "the end"),
        ("entropy(0.5)", 9, "expected entropy, with no more"),
        ("position", 1, "first is missing"),
        ("position()", 1, "first is missing"),
        ("position(3, 4)", 13, r"expected position\(first: 0 .. inf\), with no more"),
        ("position(last=3)", 10, "no other"),
        ("position(first=3, first=4)", 19, "no other"),
        ("position(entropy)", 10, "expected a number for first"),
        ("position(nan)", 10, "expected a number"),
        ("linear(1, 2)", 1, "previous_entropy is missing"),
        ("linear(0, 0, 0, 0, inf, 0)", 1, r"lie in -1e\+06 .. 1e\+06, got inf in Linear"),
        ("~bernoulli(20)", 2, r"lie in 0 .. 1, got 20 in Bernoulli\(rate=20\)"),
        ("entropy ! always", 9, 'a name, a number, a text in "" or one of'),
        ("And(entropy, always)", 1, "none called And"),
        ("~" * 60 + "always", DEEPEST + 1, f"{DEEPEST} levels"),
        ("(" * 900, DEEPEST + 1, f"{DEEPEST} levels"),
        ("always" + "|always" * 900, LONGEST + 1, f"{LONGEST} characters at most"),
    ],
)
def test_an_error_says_where_what_and_what_there_is(text, column, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse_gate(text)
    assert f"the gate cannot be read at column {column}: " in str(caught.value)
    assert "there is entropy, entropy_ratio(at_least: -inf .. inf), position(first: 0 .. inf)" in str(
        caught.value
    )
    marked, caret = str(caught.value).split("\n")[1:3]
    assert marked[caret.index("^") :].startswith(text[column - 1 : column + 5][:1])


@pytest.mark.parametrize(
    "text", ["entropy", "additive & centred", "~additive", "(additive)", "clipped(1, entropy)"]
)
def test_gates_and_operators_are_no_tilts(text):
    with pytest.raises(ValueError, match="there is additive, centred, advantage, standardised, clipped"):
        parse_tilt(text)


def test_a_long_chain_is_read():
    text = "|".join(["never"] * 160)
    assert text_of(parse_gate(text)) == text.replace("|", " | ")


def leaves(kind, module):
    """Each class that a module has without operands, its numbers drawn from their ranges."""
    drawn = []
    for cls in named(kind, module).values():
        ranges = [range_of(f) for f in fields(cls) if not f.metadata.keys() & {"kind", "ids"}]
        if len(ranges) == len(fields(cls)):
            # With infinite ends hypothesis wants none given.
            numbers = [
                st.floats(*(None if math.isinf(end) else end for end in ends), allow_nan=False)
                for ends in ranges
            ]
            drawn.append(st.tuples(*numbers).map(lambda found, cls=cls: cls(*found)))
    return st.one_of(drawn)


AFTER = st.builds(
    After,
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4).map(tuple),
    started=st.one_of(st.just(0), st.floats(0, 1)),
)
GATES = st.recursive(
    st.one_of(leaves(gates.Gate, gates), AFTER),
    lambda inner: st.one_of(inner.map(Not), st.builds(And, inner, inner), st.builds(Or, inner, inner)),
    max_leaves=12,
)
TILTS = st.recursive(
    leaves(tilts.Tilt, tilts),
    lambda inner: st.builds(Clipped, st.floats(0, allow_nan=False), inner),
    max_leaves=3,
)


@settings(max_examples=150)
@given(GATES)
@example(Position(-0.0) & Bernoulli(5e-324))
@example(Linear(-math.inf, -1e6, 1e6, 5e-324, -0.0, 1))
@example(EntropyRatio(-math.inf) | (LogitGap(1e300) | Position(3)))
def test_a_gate_is_what_its_text_says(gate):
    text = text_of(gate)
    assume(len(text) <= LONGEST)  # a dozen sums of six numbers of any length are too much
    assert parse_gate(text) == gate


@settings(max_examples=50)
@given(TILTS)
def test_a_tilt_is_what_its_text_says(tilt):
    assert parse_tilt(text_of(tilt)) == tilt


KEYWORDS = ["3", "-inf", "1e999", "first", "tokens", "started", '"</think>"', '"', "\\"]
WORDS = st.lists(
    st.sampled_from([*"~&|(),= \n", *named(gates.Gate, gates), *named(tilts.Tilt, tilts), *KEYWORDS])
).map("".join)


@settings(max_examples=300)
@given(st.one_of(st.text(), WORDS))
@example("position(" + "9" * 500 + ")")
@example("\x00entropy\ud800")
@example("position(٣)")
@example('after("\x00", ' + "1," * 400)
def test_garbage_is_a_value_error_or_nothing(text):
    for parse in (parse_gate, parse_tilt, lambda text: parse_gate(text, encode)):
        with contextlib.suppress(ValueError):
            parse(text)
