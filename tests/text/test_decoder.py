"""Text token by token is the text of all tokens, and stop strings are found wherever tokens end."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sia_jax.text.decoder import IncrementalDecoder, cut_at_stop, token_pieces
from tests.support.tokenizers import save_llama3_tokenizer, save_qwen3_tokenizer

TEXTS = (
    "How long should I boil an egg?",
    "крем-брюле, 卵は何分?",
    "🧑‍🍳👩🏽‍🚀 and 🏳️‍🌈, x\u0301",
    "\u0000\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff",
    "a literal \ufffd stays, \ufffd\ufffd",
    "",
)


@pytest.fixture(scope="module", params=["qwen3", "llama3"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedTokenizerBase:
    folder: Path = tmp_path_factory.mktemp(request.param)
    {"qwen3": save_qwen3_tokenizer, "llama3": save_llama3_tokenizer}[request.param](folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def byte_fallback() -> PreTrainedTokenizerBase:
    """Words and letters, and bytes for all other characters, as SentencePiece makes tokenizers."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdefgh"]
    words += ["\u2581bad", "\u2581age", "\ufffd"]
    model = models.Unigram([(word, -float(len(words) - i)) for i, word in enumerate(words)], 0, True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in words[:3]])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int], skip: bool = True) -> str:
    return tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)


def byte_ids(tokenizer: PreTrainedTokenizerBase, content: bytes) -> list[int]:
    """One token for each byte, whatever the merges: byte b of a text is the first byte-level token of it."""
    names = _byte_names()
    return [tokenizer.convert_tokens_to_ids(names[byte]) for byte in content]


def _byte_names() -> dict[int, str]:
    # The byte-level alphabet (GPT-2): printable Latin-1 stands for itself, the rest follows from U+0100 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


@pytest.mark.parametrize("text", TEXTS)
def test_pushes_join_to_the_text(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    for ids in (encode(tokenizer, text), byte_ids(tokenizer, text.encode())):
        decoder = IncrementalDecoder(tokenizer)
        pieces = [decoder.push(token) for token in ids]
        assert "".join(pieces) + decoder.finish() == text
        assert text.count("\ufffd") == sum(piece.count("\ufffd") for piece in pieces) + text.endswith(
            "\ufffd"
        )
        assert "".join(token_pieces(tokenizer, ids)) == text
        assert len(token_pieces(tokenizer, ids)) == len(ids)


def test_a_character_comes_with_its_last_byte(tokenizer: PreTrainedTokenizerBase) -> None:
    decoder = IncrementalDecoder(tokenizer)
    ids = byte_ids(tokenizer, "a卵🍳b".encode())
    assert [decoder.push(token) for token in ids] == ["a", "", "", "卵", "", "", "", "🍳", "b"]
    assert decoder.finish() == ""


def test_several_ids_at_a_time_and_a_decoder_that_is_used_again(tokenizer: PreTrainedTokenizerBase) -> None:
    decoder = IncrementalDecoder(tokenizer)
    ids = byte_ids(tokenizer, "卵🍳".encode())
    assert decoder.push(ids[:4]) == "卵"
    assert decoder.push([]) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.push(ids) == "卵🍳"


def test_special_tokens_inside_a_character(tokenizer: PreTrainedTokenizerBase) -> None:
    end = tokenizer.eos_token_id
    first, *rest = byte_ids(tokenizer, "é".encode())
    assert token_pieces(tokenizer, [first, end, *rest, end]) == ["", "", "é", ""]
    shown = token_pieces(tokenizer, [first, end, *rest], skip_special_tokens=False)
    assert "".join(shown) == decode(tokenizer, [first, end, *rest], skip=False)


@settings(derandomize=True, database=None)
@given(content=st.binary(max_size=12), data=st.data())
def test_bytes_that_are_no_text(
    content: bytes, data: st.DataObject, tokenizer: PreTrainedTokenizerBase
) -> None:
    ids = byte_ids(tokenizer, content)
    special = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=4))
    ids = ids[:6] + special + ids[6:]
    decoder = IncrementalDecoder(tokenizer)
    text = ""
    for token in ids:
        text += decoder.push(token)
        assert decode(tokenizer, ids).startswith(text)
    assert text + decoder.finish() == decode(tokenizer, ids)


@settings(derandomize=True, database=None, max_examples=300)
@given(data=st.data())
def test_pushes_join_to_the_text_where_bytes_are_tokens(
    data: st.DataObject, byte_fallback: PreTrainedTokenizerBase
) -> None:
    # Runs of bytes that are text, that are none, and that become none by their last byte; <s> within them.
    whole = st.sampled_from("\u00e9\u5375\U0001f373 \u0301").map(lambda c: [3 + b for b in c.encode()])
    others = st.integers(3 + 0x80, len(byte_fallback) - 1) | st.integers(0, 2)
    parts = data.draw(st.lists(whole | others.map(lambda i: [i]), max_size=12))
    ids = [i for part in parts for i in part]
    for skip in (True, False):
        decoder, text = IncrementalDecoder(byte_fallback, skip_special_tokens=skip), ""
        for token in ids:
            text += decoder.push(token)
            assert decode(byte_fallback, ids, skip).startswith(text)
        assert text + decoder.finish() == decode(byte_fallback, ids, skip)
        at_once = IncrementalDecoder(byte_fallback, skip_special_tokens=skip)
        half = len(ids) // 2
        assert at_once.push(ids[:half]) + at_once.push(ids[half:]) + at_once.finish() == decode(
            byte_fallback, ids, skip
        )


def test_bytes_are_shown_when_their_run_has_ended(byte_fallback: PreTrainedTokenizerBase) -> None:
    ids = byte_fallback.encode("bad \u5375 age", add_special_tokens=False)
    assert decode(byte_fallback, ids) == "bad \u5375 age"
    decoder = IncrementalDecoder(byte_fallback)
    pushed = [decoder.push(token) for token in ids]
    assert "".join(pushed) == "bad \u5375 age"
    assert pushed[pushed.index("\u5375 age") - 3 :] == ["", "", "", "\u5375 age"]


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["a", "b", "c"], ["b"], (["a", ""], "b")),
        (["a", "b", "c"], ["bc"], (["a", "", ""], "bc")),
        (["ab", "cd", "e"], ["bc"], (["a", ""], "bc")),
        (["abc", "d"], ["b"], (["a"], "b")),
        (["a", "b", "c"], ["abc", "b"], (["a", ""], "b")),  # what is complete first, however it is split
        (["abc"], ["abc", "b"], (["a"], "b")),
        (["abc"], ["c", "bc"], (["a"], "bc")),
        (["", "a", "", "a"], ["a"], (["", ""], "a")),
        (["aa", "aa"], ["aaa"], (["", ""], "aaa")),
        (["a", "b"], ["ba", "c"], None),
        (["a"], [], None),
        ([], ["a"], None),
    ],
)
def test_cut_at_stop(pieces: list[str], stops: list[str], expected: tuple[list[str], str] | None) -> None:
    cut = cut_at_stop(pieces, stops)
    assert (cut and (cut.pieces, cut.stop)) == expected


def test_an_empty_stop_string() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        cut_at_stop(["a"], [""])


@settings(derandomize=True, database=None)
@given(
    pieces=st.lists(st.text("ab", max_size=2), max_size=8),
    stops=st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    least=st.integers(0, 9),
)
def test_no_stop_string_that_the_first_tokens_complete_ends_a_reply(pieces, stops, least) -> None:
    cut = cut_at_stop(pieces, stops, least)
    ends = []  # (tokens, characters) at which a stop string is complete, after the first tokens
    for tokens in range(least + 1, len(pieces) + 1):
        before, text = "".join(pieces[: tokens - 1]), "".join(pieces[:tokens])
        for end in range(len(before) + 1, len(text) + 1):
            ends += [(tokens, end, -len(stop), stop) for stop in stops if text[:end].endswith(stop)]
    if not ends:
        assert cut is None
        return
    tokens, end, _, stop = min(ends)
    assert cut is not None
    assert (len(cut.pieces), "".join(cut.pieces), cut.stop) == (
        tokens,
        "".join(pieces)[: end - len(stop)],
        stop,
    )
