"""decode.entropy_study on tiny checkpoints: what it writes, where it goes on, and what it refuses."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import sia_jax
from decode import entropy_study
from decode.entropy_study import JOURNAL, Args
from sia_jax.data.prompts import read_prompts
from sia_jax.runs import runner
from sia_jax.studies.entropy.records import StudyJournal
from sia_jax.world.prompts import find_prompt
from tests.support import judging
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model
from tests.support.judging import letters
from tests.support.tokenizers import save_qwen3_tokenizer

# Of one bucket with all their replies, so that one program serves them.
IDS = ("helpful/bathe-a-dog/with-my-grandfather", "harmless/parcel/sister", "honest/bee/sound-and-home")
M, MOST, LENGTH = 4, 2, 10
GOLD = "sia_jax.world.rewards:gold"
STOPS = (*range(40, 60), 90)
"""Ids that end a reply, so many that half of the replies of a random policy end by themselves."""


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> Args:
    """The run that others vary: two batches of each kind."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    options = {"tokenizer": tokenizer, "vocab_size": 352, "num_layers": 1, "bos_token_id": None}
    policy = save_tiny_policy(folder / "policy", eos_token_ids=STOPS, **options)
    save_tiny_value_model(folder / "value", policy)
    lines = [{"id": id, "prompt": find_prompt(id).text} for id in IDS]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Args(
        policy=str(folder / "policy"),
        value=str(folder / "value"),
        prompts=str(folder / "prompts.jsonl"),
        out="",
        threshold=2.0,
        max_new_tokens=LENGTH,
        positions=6,
        bins=2,
        floor=0.1,
        most=MOST,
        continuations=M,
        gold_function="tests.support.judging:letters",
        batch=20,
        resamples=20,
    )


@pytest.fixture(scope="module")
def finished(args: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run has written."""
    out = tmp_path_factory.mktemp("finished")
    entropy_study.main(replace(args, out=str(out)))
    return out


def journal_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / JOURNAL).read_text(encoding="utf-8").splitlines()]


def lines_of(out: Path) -> list[bytes]:
    """Of the journal, in one order: records are written as they are whole."""
    return sorted((out / JOURNAL).read_bytes().splitlines(keepends=True))


def summary_of(out: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (out / "entropy_study.json").read_text(encoding="utf-8")
    summary: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return summary


def test_every_position_is_told(args: Args, finished: Path) -> None:
    replies = [record for record in journal_of(finished) if record["kind"] == "reply"]
    summary = summary_of(finished)
    each = summary["each"]
    lengths = {record["id"]: len(record["tokens"]) for record in replies}
    assert [(line["id"], line["position"]) for line in each] == [
        (i, t) for i in IDS for t in range(lengths[i])
    ]
    assert summary["positions"] == len(each) == sum(lengths.values())
    lines = {(line["id"], line["position"]): line for line in each}
    shares = [p for record in replies for p in record["probabilities"]]
    for record in replies:
        p, values = np.array(record["probabilities"]), np.array(record["values"])
        for t, entropy in enumerate(record["entropy"]):
            line = lines[record["id"], t]
            assert line["entropy"] == entropy == pytest.approx(-p[t] @ np.log(p[t]), abs=1e-5)
            mean = np.average(values[t], weights=p[t])
            spread = np.sqrt(np.average((values[t] - mean) ** 2, weights=p[t]))
            assert line["value_spread"] == pytest.approx(spread, rel=1e-5)
            assert line["plain_value_spread"] == pytest.approx(values[t].std(), rel=1e-5)
            assert (line["stratum"] >= 0) == (np.sum(p[t] >= args.floor) >= 2)
    lots = np.mean([line["lot_spread"] ** 2 for line in each])
    assert lots == pytest.approx(np.mean([1 - np.square(p).sum() for p in shares]), rel=0.25)
    drawn = [line for line in each if "gold" in line]
    assert [summary["drawn"], summary["continuations"]] == [len(drawn), len(drawn) * MOST * M] == [6, 48]
    assert {len([line for line in drawn if line["stratum"] == stratum]) for stratum in (0, 1)} == {3}
    assert (finished / "entropy_study.png").read_bytes().startswith(b"\x89PNG")
    page = (finished / "entropy_study.md").read_text(encoding="utf-8")
    assert "| entropy, gold variance | all positions |" in page
    assert f"{summary['positions']:,} positions" in page


def own_replies(policy: sia_jax.Policy, ids: list[int], keys: jax.Array, room: int) -> list[list[int]]:
    """What the policy alone says after M times the same ids."""
    samples = sia_jax.sample(
        sia_jax.SteeringParams(policy.params),
        sia_jax.Prompt.pack([ids] * M, policy_length=64, value_length=64),
        np.inf,
        rng_key=keys,
        config=sia_jax.SamplerConfig(policy=policy.config, max_new_tokens=LENGTH),
        knobs=sia_jax.Knobs(max_new_tokens=room),
    )
    tokens, lengths = np.asarray(samples.tokens), np.asarray(samples.lengths)
    return [tokens[j, : lengths[j]].tolist() for j in range(M)]


def test_replies_are_the_policys_own(args: Args, finished: Path) -> None:
    """As `sia_jax.sample` gives them without a value model, and values as full passes do."""
    models = runner.load_models(args.sampling)
    assert models.value is not None
    record = next(r for r in journal_of(finished) if r["kind"] == "reply" and r["index"] == 1)
    messages = record["prompt"]
    ids = models.policy.prompt_ids(messages, "chat", enable_thinking=False)
    keys = jax.numpy.stack([runner.prompt_key(0, 1)] * M)
    assert own_replies(models.policy, ids, keys, LENGTH) == [record["tokens"]] * M
    own = models.value.prompt_ids(messages)
    t = len(record["tokens"]) - 1
    rows = np.array([[*own, *record["tokens"][:t], token] for token in record["candidates"][t]])
    values = models.value.values(rows, np.full(len(rows), rows.shape[1]))[:, -1]
    np.testing.assert_allclose(record["values"][t], np.asarray(values), rtol=1e-4, atol=1e-5)


def test_continuations_are_the_policys_own(
    args: Args, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text is a reply's beginning, a candidate, and what `sia_jax.sample` says after them."""
    seen: list[tuple[str, str]] = []

    def note(conversations: Any) -> list[float]:
        seen.extend((asked["content"], reply["content"]) for asked, reply in conversations)
        return letters(conversations)

    (tmp_path / JOURNAL).write_bytes(
        b"".join(line for line in (finished / JOURNAL).read_bytes().splitlines(True) if b'"reply"' in line)
    )
    note.__module__ = judging.__name__  # as a version of the same function
    monkeypatch.setattr(judging, "letters", note)
    entropy_study.main(replace(args, out=str(tmp_path)))
    assert lines_of(tmp_path) == lines_of(finished)
    records = journal_of(tmp_path)
    replies = {r["index"]: r for r in records if r["kind"] == "reply"}
    policy = sia_jax.load_policy(args.policy)
    positions = [r for r in records if r["kind"] == "position"]
    del seen[: len(seen) - len(positions) * MOST * M]  # what it was tried out on
    assert len(seen) == len(positions) * MOST * M
    texts = iter(seen)
    checked = 0
    for record in positions:
        reply, t = replies[record["index"]], record["position"]
        for candidate in record["candidates"]:
            before = [*reply["tokens"][:t], candidate]
            found = [next(texts) for _ in range(M)]
            assert {asked for asked, _ in found} == {record["prompt"][-1]["content"]}
            start = policy.tokenizer.decode(before, skip_special_tokens=True)
            if candidate in STOPS or len(before) == LENGTH:
                assert {text for _, text in found} == {start}
                continue
            key = jax.random.fold_in(runner.prompt_key(0, record["index"]), np.uint32(2**31 + t))
            key = jax.random.fold_in(key, candidate)
            ids = policy.prompt_ids(record["prompt"], "chat", enable_thinking=False)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(M))
            after = own_replies(policy, [*ids, *before], keys, LENGTH - len(before))
            expected = [[*before, *own] for own in after]
            decoded = [policy.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
            assert [text for _, text in found] == decoded
            checked += 1
    assert checked > 3


def test_a_run_goes_on_where_it_stopped(
    args: Args, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (finished / JOURNAL).read_bytes().splitlines(keepends=True)
    for kept, torn in ((1, 100), (len(lines) - 3, 7)):
        (tmp_path / JOURNAL).write_bytes(b"".join(lines[:kept]) + lines[kept][:torn])
        entropy_study.main(replace(args, out=str(tmp_path)))
        assert (tmp_path / JOURNAL).read_bytes().startswith(b"".join(lines[:kept]))
        assert lines_of(tmp_path) == sorted(lines)
    ours, theirs = (json.loads((at / "entropy_study.json").read_text()) for at in (tmp_path, finished))
    assert str(tmp_path) in ours.pop("command")  # it says where to
    theirs.pop("command")
    assert ours == theirs

    def load(args: Any) -> None:
        raise AssertionError("the models were loaded")

    monkeypatch.setattr(runner, "load_models", load)
    whole = (tmp_path / JOURNAL).read_bytes()
    entropy_study.main(replace(args, out=str(tmp_path), threshold=1.0))
    assert summary_of(tmp_path)["figures"]["high/share"]["estimate"] > 0.9
    assert (tmp_path / JOURNAL).read_bytes() == whole


def test_an_interruption_loses_nothing(
    args: Args, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    interrupted: list[bool] = []

    def interrupt(conversations: Any) -> list[float]:
        # The second time would be a second Ctrl-C.
        if len(conversations) == MOST * M and not interrupted:
            interrupted.append(True)
            signal.raise_signal(signal.SIGINT)
        return letters(conversations)

    interrupt.__module__ = judging.__name__  # as a version of the same function
    monkeypatch.setattr(judging, "letters", interrupt)
    with pytest.raises(SystemExit) as end:
        entropy_study.main(replace(args, out=str(tmp_path)))
    assert end.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
    whole, part = lines_of(finished), lines_of(tmp_path)
    assert set(part) < set(whole)
    assert any(b'"position"' in line for line in part)
    assert not (tmp_path / "entropy_study.json").exists()


def test_a_template_that_writes_today_s_date_takes_another(
    args: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(args.policy, tmp_path / "policy")
    for path in (tmp_path / "policy").glob("*.jinja"):
        path.unlink()
    config = json.loads((tmp_path / "policy" / "tokenizer_config.json").read_text())
    template = "{{ date_string if date_string else strftime_now('%d') }}{{ messages[0].content }}"
    config["chat_template"] = template
    (tmp_path / "policy" / "tokenizer_config.json").write_text(json.dumps(config))
    here = replace(args, policy=str(tmp_path / "policy"), check_base=False, out=str(tmp_path / "out"))
    with pytest.raises(SystemExit, match=r"today's date into every conversation.*fix it with --date-string"):
        entropy_study.main(here)
    dated = replace(here, date_string="26 Jul 2024")
    seen: list[dict[str, Any]] = []

    def stop(path: Path, settings: dict[str, Any], *_: Any, **__: Any) -> None:
        seen.append(settings)
        raise ValueError("seen")

    monkeypatch.setattr(entropy_study, "StudyJournal", stop)
    with pytest.raises(SystemExit, match="seen"):
        entropy_study.main(dated)
    assert seen[0]["date_string"] == "26 Jul 2024"


def test_replies_to_a_prompt_of_another_name_or_text_are_refused(args: Args, finished: Path) -> None:
    prompts, settings = list(read_prompts(Path(args.prompts))), journal_of(finished)[0]["settings"]
    assert StudyJournal(finished / JOURNAL, settings, prompts, overwrite=False).replies
    text = ({"role": "user", "content": "Hello?"},)
    for other in (replace(prompts[0], id="other"), replace(prompts[0], messages=text)):
        with pytest.raises(ValueError, match="is not the input's prompt at place 0"):
            StudyJournal(finished / JOURNAL, settings, [other, *prompts[1:]], overwrite=False)


def test_who_reads_the_first_lines_of_the_page_alone_is_told_of_no_error(
    args: Args, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / JOURNAL).write_bytes((finished / JOURNAL).read_bytes())
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as end:
            entropy_study.main(replace(args, out=str(tmp_path)))
    assert isinstance(end.value.code, int)
    assert "Broken pipe" not in capsys.readouterr().err
    assert (tmp_path / "entropy_study.png").exists()


def test_values_alone_need_no_world(args: Args, tmp_path: Path) -> None:
    texts = tmp_path / "prompts.txt"
    texts.write_text("\n".join(find_prompt(id).text for id in IDS))
    entropy_study.main(
        replace(args, out=str(tmp_path), prompts=str(texts), continuations=0, gold_function=None)
    )
    summary = summary_of(tmp_path)
    assert summary["drawn"] == 0
    assert not any("gold" in name for name in summary["figures"])
    assert (tmp_path / "entropy_study.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"continuations": 3}, "4 or more"),
        ({"most": 1}, "nothing can differ"),
        ({"floor": 0.6}, "no two candidates"),
        ({"threshold": float("nan")}, "--threshold must be a finite number of nats, got nan"),
        ({"threshold": float("inf")}, "--threshold must be a finite number of nats, got inf"),
        ({"batch": 7}, "must hold a position"),
        ({"bins": 0}, "--bins must be 1 or more"),
        (
            {"gold_function": None},
            "give --gold-function MODULE:FUNCTION, or for values alone --continuations 0",
        ),
        ({"continuations": 0}, "--gold-function is for --continuations N; without that leave it out"),
        ({"prompts": "texts.txt", "gold_function": GOLD}, "prompt 0 has no reward of --gold-function"),
        ({"prompts": "other.jsonl", "gold_function": GOLD}, "none of the embedded world's"),
        ({"gold_function": GOLD}, "other settings: gold 'tests.support.judging:letters"),
        ({"prompts": "seed.jsonl"}, "prompt 'a' brings a seed or a threshold, which the options set"),
        (
            {"prompts": "threshold.jsonl", "continuations": 0, "gold_function": None},
            "prompt 'a' brings a seed or a threshold",
        ),
        ({"seed": 1}, "other settings: seed 0"),
    ],
)
def test_what_cannot_be_is_refused(
    args: Args, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("How long should I boil an egg?")
    lines = [
        {"id": IDS[0], "prompt": "Hello?"},
        *({"id": id, "prompt": find_prompt(id).text} for id in IDS[1:]),
    ]
    Path("other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, number in (("seed", 1), ("threshold", 0.5)):
        Path(f"{name}.jsonl").write_text(json.dumps({"id": "a", "prompt": "Hello?", name: number}))
    with pytest.raises(SystemExit, match=message):
        entropy_study.main(replace(args, out=str(finished), **changes))
