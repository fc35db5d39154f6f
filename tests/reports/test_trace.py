"""The page of replies says what the records say, whatever their texts are, and asks nobody for anything."""

import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest

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
    sections = text.split("<section>")[1:]
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


def test_rewards_are_shown_where_a_record_has_them() -> None:
    assert "gold" not in trace_page([make_record()], "a title")
    text = trace_page(
        [make_record(gold=-0.25, proxy=None), make_record(index=1, gold=1, proxy=0.5)], "a title"
    )
    assert ", length, gold -0.25</p>" in text
    assert ", length, gold +1.00, proxy +0.50</p>" in text
