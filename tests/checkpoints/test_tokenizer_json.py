"""Steps of a tokenizer.json that make texts endless are refused before the library takes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from sia_jax.checkpoints.tokenizer_json import check_growth
from sia_jax.checkpoints.vocabulary import load_tokenizer
from tests.support.tokenizers import save_llama3_tokenizer, save_qwen3_tokenizer


def replace(pattern: str, content: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def normalizers(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


TWICE = replace("e", "ee")
SPACES = replace("", " ", "Regex")
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
COPIES = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2, "pair": []}
ENDLESS = {
    "normalizers": normalizers(*[TWICE] * 36),
    "patterns": normalizers(*[SPACES] * 36),
    "one long text": normalizers(replace("e", "e" * 10_000)),
    "chains in chains": normalizers(*[normalizers(*[TWICE] * 6)["normalizer"]] * 6),
    "unicode forms": normalizers(*[replace("\u0644", "\ufdfa"), {"type": "NFKC"}] * 6),
    "bytes as letters": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 36}},
    "normalizers and bytes": normalizers(*[TWICE] * 8)
    | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 8}},
    "copies": {"post_processor": {"type": "Sequence", "processors": [COPIES] * 36}},
    "decoders": {"decoder": {"type": "Sequence", "decoders": [TWICE] * 36}},
    "so many that no number holds it": normalizers(*[TWICE] * 5000),
}


def change(path: Path, **parts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.4.0.0.json"])
def test_steps_that_make_a_text_endless_are_refused(tmp_path: Path, name: str, file: str) -> None:
    save_qwen3_tokenizer(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / file).write_text(whole)
    change(tmp_path / file, **ENDLESS[name])
    with pytest.raises(ValueError, match=rf"{file}: its steps may make .* copy the file from the original"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        normalizers({"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")),  # Llama 2
        normalizers({"type": "NFC"}, replace(r"\s+", " ", "Regex"), {"type": "Lowercase"}),  # CLIP
        normalizers(*[replace(f"<{i}>", "x") for i in range(500)]),  # shorter each time
        normalizers({"type": "Precompiled"}, replace(" {2,}", "▁", "Regex"))
        | {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁"}},  # T5
        {"decoder": {"type": "Sequence", "decoders": [replace("▁", " "), {"type": "ByteFallback"}]}},
        {"normalizer": 5, "decoder": [1], "pre_tokenizer": {"type": ["Sequence"]}},  # its reader says so
    ],
)
def test_steps_of_published_tokenizers_are_let_pass(tmp_path: Path, parts: dict[str, Any]) -> None:
    for save in (save_qwen3_tokenizer, save_llama3_tokenizer):
        save(tmp_path)
        change(tmp_path / "tokenizer.json", **parts)
        check_growth(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_tokenizer_is_left_to_its_reader(tmp_path: Path, content: bytes) -> None:
    check_growth(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(content)
    check_growth(tmp_path)
