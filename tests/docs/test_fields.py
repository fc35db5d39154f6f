"""docs/fields.md has exactly the fields that there are, in their order, with their shapes."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import sia_jax
from sia_jax.costs.reply import ReplyFlops
from sia_jax.data.prompts import PromptLine
from sia_jax.decoding.state import FinishReason, empty_record
from sia_jax.engine.reply import Reply, Timing, Usage, make_reply
from sia_jax.evaluation.fluency import Fluency
from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.method_runner import Chosen
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.records import make_record
from sia_jax.runs.reply_lines import ReplyLines
from sia_jax.steering.gates import Linear
from sia_jax.steering.types import CandidateRecord, TokenRecord, TopLogprobs
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.tokenizers import save_qwen3_tokenizer

PAGE = (Path(__file__).parents[2] / "docs/fields.md").read_text()
DTYPES = {"int32": np.int32, "float32": np.float32, "bool": np.bool_}


def tables(heading: str) -> list[dict[str, str]]:
    """The tables below a heading: of each the second column by the names in the first."""
    (text,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = re.findall(r"^\| `(\w+)` \| ([^|]*) ", table, flags=re.MULTILINE)
        assert len(rows) == len(table.splitlines()) - 2, "a row for each field"
        found.append(dict(rows))
    return found


def names(kind: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


@pytest.mark.parametrize(
    "kind",
    [sia_jax.Samples, CandidateRecord, TopLogprobs, Reply, Usage, Timing, sia_jax.Scored],
)
def test_the_page_has_every_field_of_a_class_and_no_other(kind: Any) -> None:
    (table,) = tables(kind.__name__)
    assert sorted(table) == sorted(names(kind))


def test_the_page_has_every_reason_with_its_number() -> None:
    (table,) = tables("FinishReason")
    assert {name: int(number) for name, number in table.items()} == {x.name: x.value for x in FinishReason}


def test_the_page_names_the_arrays_of_a_reply() -> None:
    text = PAGE[PAGE.index("`reply.tokens`") : PAGE.index("### Usage")]
    arrays = set(re.findall(r"`(?:reply\.)?(\w+)`", text)) - {"Samples"}
    assert {f.name for f in dataclasses.fields(TokenRecord)} | {"junctions", "pieces"} == arrays
    assert all(hasattr(Reply, name) for name in arrays)


def test_arrays_have_the_shapes_and_types_that_the_page_says() -> None:
    policy = tiny_policy(num_layers=1)
    value = tiny_value_model(policy)
    sizes = {"B": 2, "T": 5, "C": 3, "K": 4}
    config = sia_jax.SamplerConfig(
        policy=policy.config,
        value=value.config,
        steering=sia_jax.SteeringConfig(num_candidates=sizes["C"]),
        max_new_tokens=sizes["T"],
        record="candidates",
        top_logprobs=sizes["K"],
    )
    params = sia_jax.SteeringParams(policy.params, value.params)
    prompt = sia_jax.Prompt.pack([[1, 2], [3]])

    def call() -> sia_jax.Samples:
        return sia_jax.sample(params, prompt, 1.0, rng_key=jax.random.key(0), config=config)

    samples = jax.eval_shape(call)
    for heading, found in (
        ("Samples", samples),
        ("CandidateRecord", samples.candidates),
        ("TopLogprobs", samples.top),
    ):
        (table,) = tables(heading)
        for name, said in table.items():
            if match := re.match(r"(\w+) \[(.*)\]", said):
                array = getattr(found, name)
                shape = tuple(sizes[letter] for letter in match[2].split(", ") if letter)
                assert (array.dtype, array.shape) == (DTYPES[match[1]], shape), name
            else:
                assert heading == "Samples"
                assert name in ("candidates", "top")


@pytest.fixture(scope="module")
def reply(tmp_path_factory: pytest.TempPathFactory) -> Reply:
    """With all that a reply may have: its tokens, candidates, likeliest ids, and a tokenizer."""
    record: Any = jax.tree.map(lambda x: np.asarray(x[0]), empty_record(1, 4, 3, 2))
    ids = np.arange(12, dtype=np.int32).reshape(4, 3)
    candidates = dataclasses.replace(record.candidates, ids=ids, policy_choice=ids[:, 0])
    record = dataclasses.replace(record, candidates=candidates)
    config = sia_jax.SamplerConfig(policy=tiny_policy(num_layers=1).config)
    tokenizer = save_qwen3_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return make_reply(record, "text", FinishReason.STOP, (4, 0), (1, 1), config, tokenizer=tokenizer)


def test_the_page_has_every_field_of_a_record_of_generate_and_no_other(reply: Reply) -> None:
    prompt = PromptLine(index=0, id="a", messages=({"role": "user", "content": "Hi"},))
    lines = ReplyLines([prompt], 0, 1.0, ["digest"])
    line = lines.record(0, 0, "steered", reply) | {"settings": {}}  # which the journal adds, as the last
    table, steering = tables("Of sia generate")
    assert list(table) == list(line)
    assert list(steering) == list(line["steering"])
    assert sorted(line["usage"]) == ["policy_tokens", "value_tokens"]
    called = {"own_choice" if name == "policy_choice" else name for name in names(CandidateRecord)}
    assert set(line["candidates"]) == called
    assert set(line["top"]) == set(names(TopLogprobs))


def test_numbers_that_are_not_finite_are_null_in_records(reply: Reply) -> None:
    record = reply.to_json()
    assert record["value"] == [None] * 4
    assert record["candidates"]["values"] == [[None] * 3] * 4
    assert record["contenders"] == [0] * 4


def test_the_page_has_every_field_of_a_record_of_evaluate_and_no_other(reply: Reply) -> None:
    gate = GateNumbers(1.0, 0.1, 0.2, 0.3, 4, Linear(0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    chosen = Chosen(reply, 0, [1.0], None, "too long", {"a": 1.0}, 4, 1, 0, 3, 0.5, ReplyFlops(1.0, 2.0, 3.0))
    unit = (Method("entropy", 0.2), 3)
    record = make_record(unit, gate, 0, ("a", "digest"), chosen, (None, "no"), official=True)
    record |= Fluency(None, 0, "too long").to_json()
    record |= {"commit": "", "machine": "", "settings": {}}  # of decode.evaluate, and of its journal
    (table,) = tables("Of sia evaluate")
    assert list(table) == list(record)
