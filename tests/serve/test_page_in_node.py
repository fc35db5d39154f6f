"""What the server's page does, in Node.js against scripted replies; how it looks is in tests/pages."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.page_in_node import LACKING, escaped, run_page
from tests.support.page_server import (
    BASE,
    MODELS,
    SCRIPTS,
    STEERED,
    Heard,
    page_server,
    text_of,
)

pytestmark = pytest.mark.skipif(LACKING, reason="Node.js is not here")

Run = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[Heard]:
    with page_server() as heard:
        yield heard


@pytest.fixture
def page(tmp_path: Path, server: Heard) -> Run:
    return lambda steps, hash="": run_page(tmp_path, steps, server.address, hash)


def test_both_replies_are_asked_for_alike_but_for_the_steering(page: Run, server: Heard) -> None:
    page(
        """type("system", "Be <brief>."); type("threshold", "0.25"); type("beta", "3");
        type("temperature", "0.7"); type("tokens", "64"); type("seed", "12345");
        await generate("plain");"""
    )
    assert len(server.bodies) == 2
    base, steered = sorted(server.bodies, key=lambda body: body["sia"]["threshold"] != "inf")
    assert base.pop("sia") == {"threshold": "inf", "trace": True}
    assert steered.pop("sia") == {"threshold": 0.25, "beta": 3, "trace": True}
    assert base == steered
    assert base == {
        "model": "tiny-sia",
        "messages": [{"role": "system", "content": "Be <brief>."}, {"role": "user", "content": "plain"}],
        "temperature": 0.7,
        "max_tokens": 64,
        "seed": 12345,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert server.paths.count("/v1/chat/completions") == 2
    assert set(server.paths) == {"/v1/models", "/v1/chat/completions"}


def test_numbers_that_nobody_gave_are_the_model_s_and_are_told(page: Run, server: Heard) -> None:
    notes = page(
        """const note = name => [byId(name).value, byId(name).placeholder, byId(`${name}-note`).textContent];
        const before = [note("threshold"), note("beta")];
        await generate("plain");
        byId("model").value = "tiny"; fire(byId("model"), "change");
        return [...before, note("threshold"), note("beta")];"""
    )
    assert notes[0] == ["", "0.4", "the model’s own: from 0.4 nats on"]
    assert notes[1] == ["", "2", "the model’s own: times the value"]
    assert notes[2] == ["", "off", "the model’s own: nothing is steered"]
    assert notes[3][2] == "the model’s own"
    assert {"trace": True} in [body["sia"] for body in server.bodies]
    assert [body["messages"] for body in server.bodies] == [[{"role": "user", "content": "plain"}]] * 2


def test_sliders_change_what_is_sent_and_the_fields_beside_them(page: Run, server: Heard) -> None:
    boxes = page(
        """slide("threshold", "50"); slide("beta", "7.5"); slide("temperature", "0"); slide("tokens", "7");
        slide("seed", "3");
        await generate("plain");
        const boxes = ["threshold", "beta", "temperature", "tokens", "seed"].map(name => byId(name).value);
        slide("threshold", "101");
        await generate("plain");
        const spoken = byId("threshold-slider").getAttribute("aria-valuetext");
        return [...boxes, byId("threshold").value, spoken];"""
    )
    assert boxes == ["0.5", "7.5", "0", "7", "3", "off", "off, nothing is steered"]
    first, second = server.bodies[:2], server.bodies[2:]
    assert {json.dumps(body["sia"]) for body in first} == {
        '{"threshold": "inf", "trace": true}',
        '{"threshold": 0.5, "beta": 7.5, "trace": true}',
    }
    assert {(body["temperature"], body["max_tokens"], body["seed"]) for body in first} == {(0, 7, 3)}
    assert {body["sia"]["threshold"] for body in second} == {"inf"}


@pytest.mark.parametrize("prompt", ["plain", "hostile", "split", "bytes"])
def test_both_streams_are_shown_as_they_were_said_and_marked(page: Run, prompt: str) -> None:
    found = page(
        f"const prompt = {json.dumps(prompt)};"
        """await generate(prompt);
        all(".on").forEach(node => node.classList.remove("on"));
        const plain = node => node.data !== undefined || node.className === "escape";
        const marks = name => all(`#${name} .t`).map(node => [node.textContent, node.className,
          node.style.set["--h"], node.childNodes.every(plain)]);
        const below = node => node.childNodes.flatMap(x => (x.tagName ? [x.tagName, ...below(x)] : []));
        const names = [...new Set(all("#replies .text").flatMap(below))];
        return [said("base"), said("steered"), marks("base"), marks("steered"), names];"""
    )
    script = SCRIPTS[prompt]
    for tokens, text, marks in ((script.base, found[0], found[2]), (script.steered, found[1], found[3])):
        assert text == escaped(text_of(tokens))
        assert marks == [
            [
                escaped(one["text"]),
                "t" + " j" * one["junction"] + " s" * one["shifted"] + " n" * starts_a_line(one["text"]),
                f"{one['entropy']:.4f}",
                True,
            ]
            for one in tokens
        ]
    assert found[4] == ["SPAN"]


def starts_a_line(text: str) -> bool:
    return "\n" in text[: len(text) - len(text.lstrip())]


FIGURES = "all(`#${name} dd`).map(node => node.textContent)"


def test_figures_at_the_end_are_those_of_the_replies(page: Run) -> None:
    found = page(
        f"""await generate("plain");
        const name = "steered", other = (name => {FIGURES})("base");
        return [{FIGURES}, other, all(".end").map(x => x.textContent), byId("scale-end").textContent,
          byId("replies").style.set["--scale"], byId("state").textContent];"""
    )
    steered = sum(one["junction"] for one in STEERED)
    shifted = sum(one["shifted"] for one in STEERED)
    mean = sum(one["entropy"] for one in STEERED) / len(STEERED)
    tokens, share, shifts, speed, entropy = found[0]
    assert (tokens, share, shifts) == (
        str(len(STEERED)),
        f"{100 * steered / len(STEERED):.1f}%",
        str(shifted),
    )
    assert float(speed) > 0
    assert entropy == f"{mean:.2f} nats"
    assert found[1][:3] == [str(len(BASE)), "0.0%", "0"]
    assert found[2] == ["ended by itself"] * 2
    assert found[3] == "2.35"
    assert float(found[4]) == 2.35
    assert found[5] == (
        f"Done. Base: {len(BASE)} tokens, 0 steered, 0 shifted. "
        f"Steered: {len(STEERED)} tokens, {steered} steered, {shifted} shifted."
    )


def test_the_status_is_read_out_at_the_start_and_the_end_alone(page: Run) -> None:
    said = page(
        """const heard = [];
        const state = byId("state"), text = Object.getOwnPropertyDescriptor(
          Object.getPrototypeOf(Object.getPrototypeOf(state)), "textContent");
        Object.defineProperty(state, "textContent", {
          get() { return text.get.call(state); }, set(x) { heard.push(x); text.set.call(state, x); }});
        await generate("plain");
        return heard;"""
    )
    assert said[:2] == ["", "Both replies are being written."]
    assert len(said) == 3
    assert said[2].startswith("Done. ")


PANEL = """const panel = () => [byId("heading").textContent,
  all("#details tr").slice(1).map(row => [row.className, ...row.childNodes.map(x => x.textContent)]),
  all("#details .bar").map(bar => bar.childNodes.map(x => x.style.width))];
"""


def test_the_panel_tells_a_junction_s_candidates_their_probabilities_values_and_tilt(page: Run) -> None:
    heading, rows, bars = page(PANEL + 'await generate("plain"); return panel();')
    # The first shifted token is shown by itself.
    assert heading.startswith("␣eight ")
    for part in (
        "Steered, token 5",
        "entropy 2.35 nats",
        "junction",
        "4 contend",
        "the policy alone: ␣three",
    ):
        assert part in heading
    assert rows == [
        ["own", "␣three ○", "61%", "+0.00", "14%", ""],
        ["chosen", "␣eight ●", "22%", "+0.75", "82%", ""],
        ["", "␣ten", "8.2%", "−0.50", "1.8%", ""],
        ["", "␣some", "3.0%", "−0.75", "0.7%", ""],
    ]
    widths = [[float(x.removesuffix("%")) for x in bar] for bar in bars]
    assert widths[0] == [pytest.approx(60.653, abs=1e-2), pytest.approx(13.534, abs=1e-2)]


def test_where_the_server_does_not_tell_the_policy_s_own_choice_none_is_made_up(page: Run) -> None:
    found = page(
        PANEL
        + """await generate("plain");
        const shifted = all("#steered .s"), kept = all("#steered .j").find(x => !x.classList.contains("s"));
        shifted[1].focus(); const second = panel();
        kept.focus(); const same = panel();
        all("#base .t")[2].focus();
        return [second, same, panel()];"""
    )
    assert "the policy alone: another token" in found[0][0]
    assert [row[0] for row in found[0][1]] == ["", "chosen", "", "", ""]
    assert "the policy alone: the same" in found[1][0]
    assert [row[0] for row in found[1][1]] == ["chosen own", "", ""]
    assert "Base, token 3" in found[2][0]
    assert "policy 95%" in found[2][0]
    assert found[2][1] == []


def test_a_reply_is_one_stop_of_the_tab_key_and_arrows_go_on_from_there(page: Run) -> None:
    found = page(
        """await generate("plain");
        const place = () => [document.activeElement.closest("article")?.id, document.activeElement.dataset.t];
        const stopsOf = name => all(`#${name} .t[tabindex="0"]`).map(x => x.dataset.t);
        const stops = () => ["base", "steered"].map(stopsOf);
        const seen = [stops()];
        all("#steered .t")[0].focus();
        for (const key of ["ArrowLeft", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight"]) {
          press(key); seen.push(place());
        }
        seen.push(press("ArrowRight", {ctrlKey: true}), place(), stops());
        seen.push(document.activeElement.getAttribute("aria-describedby"), all(".on").length);
        all("#steered .t").at(-1).focus(); seen.push(press("ArrowRight"));
        return seen;"""
    )
    junctions = [str(t) for t, one in enumerate(STEERED) if one["junction"]]
    assert found[0] == [["0"], ["0"]]
    expected = ["0", "1", junctions[0], junctions[1], junctions[0], str(int(junctions[0]) + 1)]
    assert found[1:7] == [["steered", place] for place in expected]
    assert found[7:10] == [True, found[6], [["0"], [expected[-1]]]]
    assert found[10:12] == ["heading", 1]
    assert found[12] is True  # at the end the key is the browser's


def test_ctrl_and_enter_generate_and_enter_alone_does_not(page: Run, server: Heard) -> None:
    page(
        """type("prompt", "plain"); byId("prompt").focus();
        press("Enter");
        press("Enter", {ctrlKey: true, isComposing: true});
        await new Promise(resolve => setTimeout(resolve, 100));
        if (!byId("stop").disabled || byId("state").textContent) throw new Error("it began");
        if (press("Enter", {ctrlKey: true})) throw new Error("the default was not prevented");
        press("Enter", {metaKey: true}); // while it runs: nothing
        await until(over);
        if (document.activeElement !== byId("prompt")) throw new Error("the focus has moved");"""
    )
    assert len(server.bodies) == 2


def test_an_empty_prompt_and_a_wrong_number_are_said_and_nothing_is_sent(page: Run, server: Heard) -> None:
    found = page(
        """const seen = [];
        byId("generate").click(); seen.push(byId("state").textContent, document.activeElement.id);
        type("prompt", "plain"); type("temperature", "hot");
        byId("generate").click(); seen.push(byId("state").textContent, document.activeElement.id);
        seen.push(byId("temperature").getAttribute("aria-invalid"), byId("temperature-note").textContent);
        slide("temperature", "1"); seen.push(byId("temperature").getAttribute("aria-invalid"));
        return seen;"""
    )
    assert found[:4] == ["Write a prompt first.", "prompt", "A number cannot be read.", "temperature"]
    assert found[4:] == ["true", "a number from 0 to 2 goes here, such as 0.5", None]
    assert server.bodies == []


def test_stop_cancels_both_requests_and_keeps_what_was_said(page: Run, server: Heard) -> None:
    base, steered, ends, state, focus = page(
        """type("prompt", "slow"); byId("generate").focus(); byId("generate").click();
        await until(() => said("base").length > 20 && said("steered").length > 20);
        const busy = all('[aria-busy="true"]').length;
        if (busy !== 2 || document.activeElement !== byId("stop")) throw new Error("it is not busy");
        byId("stop").click();
        await until(over);
        const kept = [said("base"), said("steered")];
        for (let tries = 0, heard = {}; heard.cancelled !== 2; tries++) {
          if (tries > 100) throw new Error("the server still writes");
          await new Promise(resolve => setTimeout(resolve, 50));
          heard = await (await fetch("heard")).json();
        }
        if (kept[0] !== said("base") || all('[aria-busy="true"]').length) throw new Error("it went on");
        return [...kept, all(".end").map(x => x.textContent), byId("state").textContent,
          document.activeElement.id];"""
    )
    assert text_of(SCRIPTS["slow"].base).startswith(base)
    assert text_of(SCRIPTS["slow"].steered).startswith(steered)
    assert ends == ["stopped by you"] * 2
    assert state.startswith("Stopped. Base: ")
    assert focus == "generate"
    assert len(server.bodies) == 2


TROUBLE = "byId('trouble').childNodes.map(x => x.textContent)"


@pytest.mark.parametrize(
    ("prompt", "trouble"),
    [
        (
            "busy",
            "The server refuses (503): the queue is full. The server has no room now: try again in 7 s.",
        ),
        (
            "bad",
            "The server refuses (400): temperature must be 0 or more <b>\\u202e</b> (temperature). "
            "Change the request, and generate again.",
        ),
        (
            "breaks",
            "The server gave up: the engine has died. What was said until then stands below. Generate again.",
        ),
        (
            "cut off",
            "The connection ended before the reply did. What was said until then stands below. "
            "Generate again.",
        ),
    ],
)
def test_an_error_is_said_once_with_what_to_do_and_what_came_before_it_stays(
    page: Run, prompt: str, trouble: str
) -> None:
    found = page(
        f"""await generate({json.dumps(prompt)});
        const ends = all(".end").map(x => x.textContent);
        const first = [{TROUBLE}, said("steered"), ends, byId("state").textContent];
        await generate("plain");
        return [...first, {TROUBLE}, said("steered")];"""
    )
    assert found[0] == [trouble]
    assert found[1] == text_of(SCRIPTS[prompt].steered)
    assert found[2] == ["ended by an error"] * 2
    assert found[3].startswith("Ended by an error. ")
    assert found[4:] == [[], text_of(STEERED)]  # and the next run starts clean


def test_an_error_of_one_reply_leaves_the_other_to_its_end(page: Run) -> None:
    found = page(
        f"""await generate("half");
        return [{TROUBLE}, all(".end").map(x => x.textContent), said("base")];"""
    )
    assert len(found[0]) == 1
    assert found[0][0].startswith("Steered: The server gave up: not finite. ")
    assert found[1:] == [["ended by itself", "ended by an error"], text_of(BASE)]


def test_a_server_that_traces_nothing_still_shows_its_replies_and_says_so(page: Run) -> None:
    found = page('await generate("untraced"); return [said("base"), all(".end").map(x => x.textContent)];')
    assert found == [text_of(BASE), ["ended by itself; the server sent no trace of it"] * 2]


def test_a_key_is_asked_for_kept_in_the_tab_and_sent(tmp_path: Path) -> None:
    with page_server(key="sk-secret") as server:
        found = run_page(
            tmp_path,
            f"""const seen = [{TROUBLE}, byId("unlock").hidden, document.activeElement.id];
            const use = async key => {{ byId("key").value = key; fire(byId("unlock"), "submit"); }};
            use("no spaces"); seen.push({TROUBLE});
            use("sk-wrong"); await until(() => {TROUBLE}[0]?.includes("401"));
            seen.push(byId("unlock").hidden);
            use("sk-secret"); await until(() => byId("unlock").hidden);
            seen.push({TROUBLE}, sessionStorage.getItem("sia-key"), byId("key").value, location.hash);
            await generate("plain"); seen.push(said("base"));
            fire(byId("forget"), "click"); seen.push(sessionStorage.getItem("sia-key"));
            return seen;""",
            server.address,
        )
    assert found[0] == ["The server refuses (401): a key is needed. Enter a key of this server below."]
    assert found[1:3] == [False, "key"]
    assert found[3] == ["A key is made of letters, digits and signs, without spaces. Enter it again."]
    assert found[4] is False
    assert found[5:9] == [[], "sk-secret", "", ""]
    assert found[9:] == [text_of(BASE), None]
    assert len(server.bodies) == 2


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with page_server() as server:
        gone = server.address
    found = run_page(
        tmp_path,
        f"""const first = {TROUBLE};
        type("prompt", "plain"); byId("generate").click();
        await until(() => byId("stop").disabled && !byId("generate").disabled);
        return [first, {TROUBLE}];""",
        gone,
    )
    assert found == [["The server cannot be reached. See that it runs, and try again."]] * 2


def test_the_hash_keeps_the_settings_but_no_text(page: Run, server: Heard) -> None:
    hash = page(
        """type("prompt", "plain"); type("system", "secret"); type("threshold", "off"); slide("seed", "9");
        type("tokens", "33"); type("beta", "wrong");
        return location.hash;"""
    )
    assert hash == "#model=tiny-sia&threshold=off&temperature=1&tokens=33&seed=9"


@pytest.mark.parametrize(
    ("hash", "expected"),
    [
        (
            "#model=tiny&threshold=off&beta=4&temperature=0.3&tokens=33&seed=9",
            ["tiny", "off", "4", "0.3", "33", "9"],
        ),
        (
            "#model=<b>&threshold=x&beta=-1&temperature=9&tokens=1.5&seed=%00&__proto__=1",
            ["tiny-sia", "", "", "1", "160", "0"],
        ),
        ("", ["tiny-sia", "", "", "1", "160", "0"]),
    ],
)
def test_settings_come_back_from_the_hash_and_what_cannot_be_read_does_not(
    page: Run, hash: str, expected: list[str]
) -> None:
    names = ["model", "threshold", "beta", "temperature", "tokens", "seed"]
    assert page(f"return {json.dumps(names)}.map(name => byId(name).value);", hash) == expected


def test_nothing_runs_by_opening_the_page(page: Run, server: Heard) -> None:
    models = page("return all('#model option').map(x => [x.value, x.textContent]);", "#seed=3")
    assert models == [[model["id"]] * 2 for model in MODELS]
    assert server.paths == ["/v1/models"]
