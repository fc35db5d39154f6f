"""The official code's forms, written down from their description, and read back by our reader of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sia_jax.data.records import Record as SetRecord
from sia_jax.data.sources.official import OfficialFiles
from sia_jax.evaluation.comparison import Measured
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.official import (
    OfficialPrompt,
    check_official,
    official_quantiles,
    official_results,
    write_official_quantiles,
    write_official_results,
)

PROMPTS = [
    OfficialPrompt("Human:\nTee?\nAssistant:\n", "<s>Tee?", "<|im_start|>user\nTee?", [1, 20], [5, 6, 7]),
    OfficialPrompt("Human:\nÖl?\nAssistant:\n", "<s>Öl?", "<|im_start|>user\nÖl?", [1, 21], [5, 8, 7]),
]

# As evaluate.py of https://github.com/hurunyi/SIA: json.dump(ensure_ascii=False, indent=4), and a newline.
EXPECTED = """[
    {
        "id": 1,
        "prompt": "Human:\\nTee?\\nAssistant:\\n",
        "result": "Yes.",
        "llm_prompt": "<s>Tee?",
        "rm_prompt": "<|im_start|>user\\nTee?",
        "llm_prompt_tokens_ids": "1,20",
        "rm_prompt_tokens_ids": "5,6,7",
        "generated_tokens_ids": "30,31,2",
        "rm_guided_tokens_mask": "0,1,1",
        "intervene_ratio": 0.6666666666666666,
        "elapsed": 0.5,
        "reward": -1.25
    },
    {
        "id": 2,
        "prompt": "Human:\\nÖl?\\nAssistant:\\n",
        "result": "",
        "llm_prompt": "<s>Öl?",
        "rm_prompt": "<|im_start|>user\\nÖl?",
        "llm_prompt_tokens_ids": "1,21",
        "rm_prompt_tokens_ids": "5,8,7",
        "generated_tokens_ids": "",
        "rm_guided_tokens_mask": "",
        "intervene_ratio": 0.0,
        "elapsed": 0.25
    }
]
"""


def record(index: int, ids: str, mask: str, **changes: Any) -> dict[str, Any]:
    made = {"index": index, "seed": 3, "length": len(ids.split(",")) if ids else 0, "text": "Yes."}
    made |= {"junctions": mask.count("1"), "seconds": 0.5, "proxy": -1.25}
    made["official"] = {"generated_tokens_ids": ids, "rm_guided_tokens_mask": mask}
    return made | changes


RECORDS = [
    record(1, "", "", text="", seconds=0.25, proxy=None),
    record(0, "30,31,2", "0,1,1"),
]


def test_results_are_of_the_official_form_to_the_letter(tmp_path: Path) -> None:
    write_official_results(tmp_path, [Measured(Method("entropy", 0.2), RECORDS)], PROMPTS)
    path = tmp_path / "entropy-0.2" / "seed-3" / "results.json"
    assert path.read_text(encoding="utf-8") == EXPECTED
    assert [*tmp_path.rglob("*.json")] == [path]


def test_each_seed_has_a_file_of_its_own(tmp_path: Path) -> None:
    more = [{**one, "seed": 4} for one in RECORDS]
    write_official_results(tmp_path, [Measured(Method("base"), [*RECORDS, *more])], PROMPTS)
    for seed in (3, 4):
        path = tmp_path / "base" / f"seed-{seed}" / "results.json"
        assert json.loads(path.read_text()) == official_results(RECORDS, PROMPTS)


def test_our_reader_of_official_files_reads_densely_steered_results(tmp_path: Path) -> None:
    found = official_results([record(0, "30,31,2", "1,1,1")], PROMPTS)
    (tmp_path / "r.json").write_text(json.dumps(found))
    (read,) = OfficialFiles([tmp_path / "r.json"], vocab_size=40)
    assert isinstance(read, SetRecord)
    assert np.array_equal(read.prompt_ids, [5, 6, 7])
    assert np.array_equal(read.reply_ids, [30, 31, 2])
    assert read.reward == -1.25


def test_quantiles_are_one_minus_the_ratio_and_the_official_code_s_loop_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "q.json"
    write_official_quantiles(path, {0.8: 0.25, 0.1: 1.75, 0.4: 1.0})
    assert path.read_text() == (
        '{\n    "quantiles": {\n        "0.2": 0.25,\n        "0.6": 1.0,\n        "0.9": 1.75\n    }\n}\n'
    )
    data = json.loads(path.read_text())
    runs = [round(data["quantiles"][name], 3) for name in data["quantiles"]]
    assert runs == [0.25, 1.0, 1.75]
    assert official_quantiles({0.35: 2.0}) == {"quantiles": {"0.65": 2.0}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "official must be an object"),
        ({"generated_tokens_ids": "1"}, "official must be an object"),
        (
            {"generated_tokens_ids": "1,2", "rm_guided_tokens_mask": "1,2"},
            "rm_guided_tokens_mask must be numbers",
        ),
        (
            {"generated_tokens_ids": "1,", "rm_guided_tokens_mask": "1,0"},
            "generated_tokens_ids must be numbers",
        ),
        ({"generated_tokens_ids": 5, "rm_guided_tokens_mask": "1,0"}, "generated_tokens_ids must be numbers"),
        (
            {"generated_tokens_ids": "1,2", "rm_guided_tokens_mask": "1"},
            "must be of the reply's 2 tokens, got 1",
        ),
        ({"generated_tokens_ids": "", "rm_guided_tokens_mask": ""}, "must be of the reply's 2 tokens, got 0"),
    ],
)
def test_ids_of_another_form_are_refused(fields: Any, message: str) -> None:
    check_official({"generated_tokens_ids": "1,2", "rm_guided_tokens_mask": "0,1"}, 2)
    with pytest.raises(ValueError, match=message):
        check_official(fields, 2)
