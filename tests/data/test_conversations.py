"""Files of conversations: carried over as they are, one error at a time."""

import json
from pathlib import Path

import pytest

from sia_jax.data.conversations import read_conversations
from sia_jax.data.row_files import json_line


def test_lines_come_back_with_a_reward_and_otherwise_unchanged(tmp_path: Path) -> None:
    fields = {
        "b": [0.1, -0.0, 2**70, None, True],
        "prompt": "卵",
        "reward": None,
        "response": "🥚",
        "a": {},
    }
    path = tmp_path / "file.jsonl"
    path.write_text("\ufeff" + json.dumps(fields) + "\r\n\n" + json.dumps(fields), encoding="utf-8")
    lines = list(read_conversations(path))
    assert [line.number for line in lines] == [1, 3]
    for line in lines:
        assert line.messages == [
            {"role": "user", "content": "卵"},
            {"role": "assistant", "content": "🥚"},
        ]
        written = json_line(line.rewarded(0.25))
        assert written.endswith(b"\n")
        assert json.loads(written) == fields | {"reward": 0.25}
        assert list(json.loads(written)) == list(fields)
    assert "卵".encode() in written
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_line(line.rewarded(float("nan")))


def test_the_digest_is_of_the_conversation_alone(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"content": "b", "role": "assistant"}]
    path = tmp_path / "file.jsonl"
    records = [
        {"prompt": "a", "response": "b", "id": 1},
        {"messages": turns},
        {"prompt": "a", "response": "c"},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    one, same, other = (line.digest for line in read_conversations(path))
    assert one == same != other
    assert [line.number for line in read_conversations(path, limit=2)] == [1, 2]


def test_replies_of_generate_are_conversations(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "a"}]
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"id": 1, "prompt": turns, "text": "b", "tokens": [3, 4]}))
    (line,) = read_conversations(path)
    assert line.messages == [*turns, {"role": "assistant", "content": "b"}]
    assert line.rewarded(1.5) == line.fields | {"reward": 1.5}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": {"prompt_ids": [3]}, "text": "b"}, "a prompt of ids, .* generate from texts"),
        ({"prompt": [], "text": 5}, "'text' must be a text or null, got a number"),
        ({"prompt": []}, "there is a 'prompt' but no 'response'"),
    ],
)
def test_replies_that_are_no_conversations_are_refused(tmp_path: Path, fields: dict, message: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"file.jsonl, line 1: .*{message}"):
        list(read_conversations(path))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_conversations_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"empty.jsonl: there are no conversations in it"):
        list(read_conversations(path))
