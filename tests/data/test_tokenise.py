"""Conversations as records: the value model's prompt, and one stop token where the reply ended by itself."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from sia_jax.data.sources.conversations import Conversation
from sia_jax.data.tokenise import stop_id, tokenise
from sia_jax.text.chat import value_prompt
from sia_jax.text.markup import CHATML, LLAMA3, markup_of
from sia_jax.text.token_ids import num_tokens
from tests.support.tokenizers import save_llama3_tokenizer, save_qwen3_tokenizer

STOPS = {"qwen3": "<|im_end|>", "llama": "<|eot_id|>"}
MARKUPS = {"qwen3": CHATML, "llama": LLAMA3}
MESSAGES = (
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "How long should I boil an egg?"},
    {"role": "assistant", "content": "Seven minutes."},
    {"role": "user", "content": "And 卵 two?"},
    {"role": "assistant", "content": "\n The same,\nif the water boils. 🧑‍🍳"},
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerBase]:
    folder: Path = tmp_path_factory.mktemp("tokenizers")
    return {
        "qwen3": save_qwen3_tokenizer(folder / "qwen3"),
        "llama": save_llama3_tokenizer(folder / "llama"),
    }


@pytest.fixture(params=["qwen3", "llama"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def conversation(**changes) -> Conversation:
    return Conversation("id", "group", MESSAGES, "a.jsonl, line 1", **changes)


def test_ids_are_those_of_prompt_and_reply_and_the_turn_end(tokenizers, family) -> None:
    tokenizer = tokenizers[family]
    record = tokenise(tokenizer, conversation(reward=0.5), MARKUPS[family])
    assert record.prompt_ids.tolist() == value_prompt(tokenizer, MESSAGES[:-1], MARKUPS[family])
    assert tokenizer.decode(record.reply_ids[:-1]) == MESSAGES[-1]["content"]
    assert record.reply_ids[-1] == tokenizer.convert_tokens_to_ids(STOPS[family])
    assert record.prompt_ids.dtype == record.reply_ids.dtype == np.int32
    assert (record.id, record.group, record.messages, record.reward) == ("id", "group", MESSAGES, 0.5)


def test_a_whole_turn_is_what_the_markup_makes_of_it(tokenizers, family) -> None:
    # The reply as the last turn of a prompt that goes on has the very ids that are trained on, unless it
    # begins with a line break, which there becomes one token with the header's.
    tokenizer = tokenizers[family]
    messages = (*MESSAGES[:-1], {"role": "assistant", "content": MESSAGES[-1]["content"].lstrip()})
    record = tokenise(tokenizer, Conversation("id", "group", messages, "here"), MARKUPS[family])
    further = value_prompt(tokenizer, [*messages, {"role": "user", "content": "?"}], MARKUPS[family])
    ids = [*record.prompt_ids.tolist(), *record.reply_ids.tolist()]
    assert further[: len(ids)] == ids


def test_a_reply_that_was_cut_has_no_stop_token(tokenizers, family) -> None:
    tokenizer = tokenizers[family]
    whole, cut = (tokenise(tokenizer, conversation(complete=done), MARKUPS[family]) for done in (True, False))
    assert whole.reply_ids[:-1].tolist() == cut.reply_ids.tolist()
    assert cut.reply_ids[-1] != stop_id(tokenizer, MARKUPS[family])


def test_no_bos_comes_into_a_reply(tokenizers) -> None:
    record = tokenise(tokenizers["llama"], conversation(), LLAMA3)
    assert tokenizers["llama"].bos_token_id not in record.reply_ids
    assert record.prompt_ids.tolist().count(tokenizers["llama"].bos_token_id) == 1


def test_the_stop_token_closes_a_turn_of_the_tokenizers_markup(tokenizers, family) -> None:
    markup = markup_of(tokenizers[family])
    assert markup == MARKUPS[family]
    assert markup.turn_end == STOPS[family]


def test_a_tokenizer_without_the_marks_is_refused(tokenizers) -> None:
    with pytest.raises(ValueError, match=r"lacks the special tokens \['<\|start_header_id\|>'"):
        stop_id(tokenizers["qwen3"], LLAMA3)
    with pytest.raises(ValueError, match="use the value model's own tokenizer"):
        tokenise(tokenizers["llama"], conversation(complete=False), CHATML)


def test_every_id_with_a_token_is_counted(tokenizers, family) -> None:
    tokenizer = tokenizers[family]
    assert num_tokens(tokenizer) == len(tokenizer)
    assert tokenizer.convert_ids_to_tokens(num_tokens(tokenizer) - 1) is not None
