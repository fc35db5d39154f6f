"""The page of replies says what the records say, whatever their texts are, and asks nobody for anything."""

import base64
import copy
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.reports.trace import trace_page

HOSTILE = "</script><script>alert(1)</script> & <b>\x1b{{data}}"
NAMES = {"1": "yes", "2": HOSTILE, "3": " no", "4": "\n"}


class Page(HTMLParser):
    """A page's elements, the texts of its replies and its data."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.replies: list[str] = []
        self.scripts: list[str] = []
        self.titles: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])

    def tokens(self) -> list[dict[str, str | None]]:
        return [given for name, given in self.elements if name == "span" and "data-t" in given]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag == "article":
            self.replies.append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in ("meta", "br"):
            self._open.append("token" if "data-t" in given else tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        here = self._open[-1] if self._open else ""
        if here == "token":
            self.replies[-1] += data
        if here == "script":
            self.scripts[-1] += data
        if here == "h2":
            self.titles.append(data)


def make_record(**changes: Any) -> dict[str, Any]:
    """Three tokens, the second a junction where the value model changed the choice."""
    record: dict[str, Any] = {
        "id": "a",
        "index": 0,
        "branch": 0,
        "method": "steered",
        "threshold": 1.0,
        "prompt": [{"role": "user", "content": f"Why? {HOSTILE}"}],
        "finish_reason": "length",
        "length": 3,
        "steering": {"ratio": 1 / 3, "junctions": 1, "shifted": 1},
        "tokens": [1, 2, 4],
        "pieces": ["yes", HOSTILE, "\n"],
        "names": NAMES,
        "junction": [False, True, False],
        "shifted": [False, True, False],
        "entropy": [0.25, 2.0, None],
        "candidates": {
            "ids": [[1, 2], [2, 3], [4, 1]],
            "logits": [[0.0, -1.0]] * 3,
            "values": [[None, None], [0.5, -1.5], [None, None]],
            "policy_logprobs": [[math.log(0.7), math.log(0.3)]] * 3,
            "logprobs": [[0.0, None], [math.log(0.9), math.log(0.1)], [math.log(0.6), math.log(0.4)]],
            "own_choice": [1, 3, 4],
            "kl": [0.0, 0.2, 0.0],
        },
        "settings": {"policy": "a-policy", "value": "a-value-model", "beta": 2.0},
    }
    return record | changes


def test_the_page_holds_the_texts_of_replies_and_prompts_whatever_they_are() -> None:
    page = Page(trace_page([make_record()], f"title {HOSTILE}"))
    shown = HOSTILE.replace("\x1b", "␛")
    assert page.replies == [f"yes{shown}\n"]
    assert page.titles == [f"Why? {shown}"]
    assert len(page.scripts) == 2  # the data and the program: no reply has become a script
    assert page.data[0][1]["candidates"][0]["text"] == shown


def test_the_page_asks_the_network_for_nothing() -> None:
    text = trace_page([make_record()], "a title")
    page = Page(text)
    assert not {"link", "img", "iframe", "object", "embed", "video"} & {name for name, _ in page.elements}
    named = {name for _, given in page.elements for name in given}
    assert not {"src", "href", "action", "srcset"} & named
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", text)


def test_tokens_are_marked_and_shaded_as_recorded() -> None:
    tokens = Page(trace_page([make_record()], "a title")).tokens()
    assert [token["class"] for token in tokens] == ["t", "t j s", "t"]
    assert [token["style"] for token in tokens] == ["--e:0.125", "--e:1.000", "--e:0.000"]
    assert [token["tabindex"] for token in tokens] == ["-1", "0", "-1"]  # the tab key stops at the junction


def test_the_data_are_those_of_the_record() -> None:
    first, second, third = Page(trace_page([make_record()], "a title")).data[0]
    assert [c["policy"] for c in second["candidates"]] == pytest.approx([0.7, 0.3], abs=1e-5)
    assert [c["drawn"] for c in second["candidates"]] == pytest.approx([0.9, 0.1], abs=1e-5)
    assert [c["value"] for c in second["candidates"]] == [0.5, -1.5]
    assert [c["chosen"] for c in second["candidates"]] == [True, False]
    assert [c["own"] for c in second["candidates"]] == [False, True]
    assert (second["own"], first["own"], second["entropy"], third["entropy"]) == (" no", None, 2.0, None)
    assert first["candidates"][1]["drawn"] == 0  # the filter left it out


def test_replies_to_one_prompt_stand_side_by_side_and_prompts_below_each_other() -> None:
    records = [
        make_record(index=1, method="steered"),
        make_record(index=0, branch=1),
        make_record(index=1, method="base", junction=[False] * 3, shifted=[False] * 3),
        make_record(index=0),
    ]
    text = trace_page(records, "a title")
    sections = re.split("<section[^>]*>", text)[1:]
    headings = [re.findall("<h3>(.*?)</h3>", section) for section in sections]
    assert headings == [["steered", "steered 2"], ["base", "steered"]]
    assert [given["data-reply"] for name, given in Page(text).elements if name == "article"] == list("0123")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no replies"),
        ([{k: v for k, v in make_record().items() if k != "candidates"}], "generate with --record"),
        ([{k: v for k, v in make_record().items() if k != "names"}], "has a tokenizer"),
    ],
)
def test_records_that_cannot_be_shown_are_refused(records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace_page(records, "a title")


def test_base_comes_first_and_the_others_as_they_are_given() -> None:
    methods = ("dense", "sparse", "base", "another")
    text = trace_page([make_record(method=method) for method in methods], "a title")
    assert re.findall(r"<h3>(\w+)</h3>", text) == ["base", "dense", "sparse", "another"]


def test_a_conversation_is_shown_from_its_beginning() -> None:
    turns = [("system", f"Be {HOSTILE}"), ("user", "Is it?"), ("assistant", "Yes."), ("user", "Why?")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    text = trace_page([make_record(prompt=prompt)], "a title")
    page = Page(text)
    assert page.titles == ["Why?"]
    places = [text.index(f"<b>{role}</b>") for role in ("system", "user", "assistant")]
    assert places == sorted(places)
    assert places[-1] < text.index("<h2>")
    assert len(page.scripts) == 2


def test_a_gate_and_a_tilt_are_named_where_the_run_was_given_them() -> None:
    steered = {"policy": "p", "value": "v", "beta": 2.0}
    assert "p, steered by v with beta 2; 1 replies" in trace_page([make_record(settings=steered)], "a title")
    given = steered | {"gate": "entropy & ~position(3)", "tilt": "centred"}
    page = trace_page([make_record(settings=given)], "a title")
    assert "with beta 2, gate entropy &amp; ~position(3), tilt centred; 1 replies" in page


def test_rewards_are_shown_where_a_record_has_them() -> None:
    assert "mean gold" not in trace_page([make_record()], "a title")
    text = trace_page(
        [make_record(gold=-0.25, proxy=None), make_record(index=1, gold=1, proxy=0.5)], "a title"
    )
    assert ", length, gold -0.25</p>" in text
    assert ", length, gold +1.00, proxy +0.50</p>" in text


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def outline(page: Page) -> list[tuple[str, dict[str, str | None]]]:
    """The elements with what no record decides, and how many of each reply's tokens there are."""
    return [
        (name, {key: "" if key in ("class", "style", "tabindex") else value for key, value in own.items()})
        for name, own in page.elements
    ]


RECORD = make_record(gold=0.5, proxy=None, stop_string=None, id="a")
PATHS = [path for path in places(RECORD) if path]
OUTLINE = outline(Page(trace_page([RECORD], "a title")))
foreign = st.sampled_from(
    [
        HOSTILE,
        "<img src=x onerror=alert(1)>",
        "\"' onload=alert(1) x='",
        '" style="background:url(//x)',
        "--><script>alert(1)</script>",
        "</title><svg/onload=alert(1)>",
        "</style><script>",
        "{{data}}{{sections}}",
        "\u2028\ud800\x00",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | foreign | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(foreign | st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from(PATHS), anything), min_size=1, max_size=3), foreign)
def test_whatever_stands_in_a_record_no_element_attribute_or_script_comes_of_it(
    changes: list[tuple[tuple[Any, ...], Any]], title: str
) -> None:
    record = copy.deepcopy(RECORD)
    for path, value in changes:
        at: Any = record
        try:
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
        except (TypeError, LookupError, AttributeError):
            continue  # an earlier change took it away
    try:
        text = trace_page([record], title)
    except ValueError:
        return
    text.encode()
    page = Page(text)
    assert {name for name, _ in page.elements} <= {name for name, _ in OUTLINE} | {"p", "b"}
    assert {key for _, own in page.elements for key in own} <= {key for _, own in OUTLINE for key in own}
    assert page.scripts[1:] == Page(trace_page([RECORD], "a title")).scripts[1:]
    for _, own in page.elements:
        if "data-t" in own:
            assert re.fullmatch(r"t( j)?( s)?", own["class"] or "")
            assert re.fullmatch(r"--e:\d\.\d{3}", own["style"] or "")
    json.loads(page.scripts[0])


@given(foreign, st.sampled_from(["method", "finish_reason"]))
def test_a_text_in_a_record_is_a_text_on_the_page(text: str, field: str) -> None:
    assert outline(Page(trace_page([make_record(**{field: text})], text))) == outline(
        Page(trace_page([make_record()], "a title"))
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": "<b>"}, "threshold must be a number, 'inf' or '-inf', got '<b>'"),
        ({"finish_reason": 3}, "finish_reason must be a text, got 3"),
        ({"steering": 5}, "steering.ratio must be a number, got None"),
        ({"contenders": [1, 2]}, "contenders must be 3 whole numbers, one a token"),
        ({"values_read": [1, -2, 0]}, "values_read must be 3 whole numbers, one a token"),
        ({"pieces": ["a"]}, "pieces must be 3 texts, one a token"),
        ({"entropy": [1.0, math.inf, 1.0]}, "entropy must be 3 numbers, or null"),
        ({"names": {"1": "yes"}}, "names has no text for"),
        ({"prompt": []}, "prompt must be a list of messages"),
        ({"settings": None}, "settings.policy must be a text, got None"),
        (
            {"settings": {"policy": "p", "value": "v", "beta": 1.0, "gate": 3}},
            "settings.gate must be a text or null, got 3",
        ),
        ({"tokens": [1, 10**400, 4]}, "tokens must be a list of ids"),
    ],
)
def test_a_field_that_cannot_be_shown_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"reply 0, branch 0: {re.escape(message)}"):
        trace_page([make_record(**changes)], "a title")


def test_the_page_lets_nothing_run_but_its_own_script_and_style() -> None:
    text = trace_page([make_record()], "a title")
    (policy,) = (
        own["content"] or ""
        for name, own in Page(text).elements
        if own.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    for rule, kind in (("script-src", "script"), ("style-src-elem", "style")):
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'"
            for own in re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        ]
        assert rules[rule].split() == hashes
        assert len(hashes) == 1
    assert text.index("Content-Security-Policy") < text.index("<style>")


def cells(text: str) -> list[list[str]]:
    """The lines of the summary."""
    table = re.search(r'<table class="summary">(.*?)</table>', text, re.DOTALL)
    assert table is not None
    return [re.findall("<t[hd]>(.*?)</t[hd]>", line) for line in table[1].strip().splitlines()]


def test_the_summary_counts_prompts_tokens_steering_and_rewards_of_each_method() -> None:
    steered = [make_record(gold=1.0, proxy=0.5), make_record(index=1, gold=2.0, proxy=None)]
    base = make_record(method="base", junction=[False] * 3, shifted=[False] * 3, gold=-1, proxy=0.25)
    assert cells(trace_page([*steered, base], "a title")) == [
        ["", "prompts", "replies", "tokens", "steered", "shifted", "mean gold", "mean proxy"],
        ["base", "1", "1", "3", "0%", "0%", "-1.00", "+0.25"],
        ["steered", "2", "2", "6", "33%", "33%", "+1.50", "+0.50 (of 1)"],
    ]
    assert cells(trace_page([make_record()], "a title"))[0][-1] == "shifted"


def test_prompts_whose_replies_are_the_same_can_be_hidden_where_others_differ() -> None:
    same = [make_record(), make_record(method="base")]
    other = [make_record(index=1), make_record(index=1, method="base", pieces=["yes", "ah", "no"])]
    text = trace_page(same + other, "a title")
    assert re.findall("<section( data-same)?>", text) == [" data-same", ""]
    assert "only prompts whose replies differ (1 of 2)" in text
    hidden = '<label class="only" hidden>'
    assert hidden not in text
    for records in (other, [make_record(), make_record(index=1)]):  # nothing to choose
        assert hidden in trace_page(records, "a title")


def test_notes_stand_over_their_prompts_which_come_first_in_their_order() -> None:
    records = [make_record(index=i, prompt=[{"role": "user", "content": f"p{i}"}]) for i in range(3)]
    text = trace_page(records, "a title", {2: f"the largest {HOSTILE}", 0: "no change"})
    assert Page(text).titles == ["p2", "p0", "p1"]
    notes = re.findall('<p class="why">(.*?)</p>', text)
    assert [note[:11] for note in notes] == ["the largest", "no change"]
    assert len(Page(text).scripts) == 2


@pytest.mark.parametrize(
    "word",
    ["candidates", "entropy", "threshold", "junction", "value", "tilted", "shifted", "KL", "gold", "proxy"],
)
def test_the_page_says_what_its_words_mean(word: str) -> None:
    terms = re.findall("<dt>(.*?)</dt><dd>(.{30,}?)</dd>", trace_page([make_record()], "a title"))
    assert any(word in term for term, _ in terms)
