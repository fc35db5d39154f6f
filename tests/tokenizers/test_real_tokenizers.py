"""The real tokenizers of Qwen3 and Llama 3.1, with networks of their true vocabularies and random weights.

`python -m tests.tokenizers.fetch` fetches the files; they are in none of the default runs of the tests.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

import sia_jax
from decode import generate
from sia_jax.text import chat
from sia_jax.text.decoder import IncrementalDecoder, token_pieces
from sia_jax.text.forms import settle
from sia_jax.text.markup import CHATML, LLAMA3, Markup, markup_of
from sia_jax.text.templates import render
from tests.support.checkpoints import edit_json, save_tiny_value_model, tiny_policy
from tests.tokenizers.fetch import FILES, FOLDER

FETCHED = Path(__file__).parents[2] / FOLDER


@dataclass(frozen=True)
class Real:
    """A family, as its published checkpoints have it."""

    name: str
    family: str
    vocab_size: int
    """Rows of the embedding, padding included."""
    tokens: int
    """Ids that have a token."""
    eos: tuple[int, ...]
    """Of config.json."""
    generation_eos: tuple[int, ...]
    """Of generation_config.json."""
    stops: tuple[str, ...]
    """The tokens in which a reply ends."""
    markup: Markup
    knows_thinking: bool


QWEN3 = Real(
    *("Qwen3", "qwen3", 151_936, 151_669, (151_645,), (151_645, 151_643)),
    *(("<|im_end|>", "<|endoftext|>"), CHATML, True),
)
LLAMA31 = Real(
    *("Llama-3.1", "llama", 128_256, 128_256, (128_009,), (128_001, 128_008, 128_009)),
    # The package's file names its special tokens as Llama 3 did: 128008 became <|eom_id|> with 3.1.
    *(("<|end_of_text|>", "<|reserved_special_token_4|>", "<|eot_id|>"), LLAMA3, False),
)


@dataclass(frozen=True)
class Loaded:
    """A checkpoint of a family, loaded from a folder with the real tokenizer's files."""

    real: Real
    folder: Path
    policy: sia_jax.Policy
    value: sia_jax.ValueModel

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's."""
        tokenizer: PreTrainedTokenizerBase = self.policy.tokenizer
        return tokenizer


@pytest.fixture(scope="module", params=[QWEN3, LLAMA31], ids=lambda real: real.name)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    real: Real = request.param
    source = FETCHED / real.name
    assert source.is_dir(), f"{source} is not there; fetch it with: python -m tests.tokenizers.fetch"
    root = tmp_path_factory.mktemp(real.name)
    policy = tiny_policy(
        real.family,
        name="tiny",
        vocab_size=real.vocab_size,
        num_layers=1,
        tie_word_embeddings=False,
        eos_token_ids=real.eos,
        bos_token_id=None,
        pad_token_id=None,
    )
    # Ids without a token would be drawn nearly always, if nothing kept them out.
    head = np.array(policy.params["lm_head"]["weight"])
    head[real.tokens :] *= 50
    policy.params["lm_head"]["weight"] = jax.numpy.asarray(head)
    sia_jax.save_policy(policy, root / "tiny")
    edit_json(root / "tiny" / "generation_config.json", eos_token_id=list(real.generation_eos))
    for name in FILES:
        shutil.copyfile(source / name, root / "tiny" / name)
    save_tiny_value_model(root / "value", policy)
    policy = sia_jax.load_policy(root / "tiny")
    return Loaded(real, root, policy, sia_jax.load_value_model(root / "value", policy))


CONVERSATIONS = {
    "one turn": [("user", "How do I keep basil alive in winter?")],
    "system": [("system", "Be brief. 要短い。"), ("user", "Why is the sky blue? 🌌")],
    "turns": [
        ("user", "One?"),
        ("assistant", "One."),
        ("user", " Two?\n"),
        ("assistant", "Two."),
        ("user", "?"),
    ],
    "all": [("system", "Count."), ("user", "1"), ("assistant", "2"), ("user", "3")],
    "thoughts": [("user", "1"), ("assistant", "<think>\nHm.\n</think>\n\n2"), ("user", "3")],
    "blank": [("user", "")],
    "marks": [("user", "What does <|im_end|> or <|eot_id|> mean, or </think>?")],
    "signs": [("user", "cafe\u0301 naïve 👩🏽‍🚀 \u202eabc\u200b {{ x }} {% if %} \u0000 \ufffd")],
}


@pytest.fixture(params=CONVERSATIONS.values(), ids=list(CONVERSATIONS))
def messages(request: pytest.FixtureRequest) -> list[chat.Message]:
    return [{"role": role, "content": content} for role, content in request.param]


@pytest.mark.parametrize("thinking", [False, True])
def test_a_chat_prompt_is_what_apply_chat_template_makes(
    loaded: Loaded, messages: list[chat.Message], thinking: bool
) -> None:
    variables = {"enable_thinking": thinking} if loaded.real.knows_thinking else {}
    options: dict[str, Any] = {"add_generation_prompt": True} | variables
    theirs = loaded.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    assert loaded.policy.prompt_ids(messages, **variables) == theirs
    text = loaded.tokenizer.apply_chat_template(messages, tokenize=False, **options)
    assert render(loaded.tokenizer, messages, **options) == text
    if loaded.real.knows_thinking:
        assert text.endswith("<think>\n\n</think>\n\n") != thinking
    else:
        with pytest.raises(ValueError, match=r"no variables \['enable_thinking'\]"):
            loaded.policy.prompt_ids(messages, enable_thinking=True)


def test_a_finished_conversation_is_what_apply_chat_template_makes(
    loaded: Loaded, messages: list[chat.Message]
) -> None:
    done = [*messages, {"role": "assistant", "content": "It is 42 °C — or so. 🧊"}]
    theirs = loaded.tokenizer.apply_chat_template(done, tokenize=True, return_dict=False)
    ids = chat.reward_conversation(loaded.tokenizer, done)
    assert ids == theirs
    assert ids.count(loaded.tokenizer.bos_token_id) == (loaded.real.family == "llama")


def test_the_raw_form_has_the_bos_of_the_family_and_no_eos(
    loaded: Loaded, messages: list[chat.Message]
) -> None:
    ids = loaded.policy.prompt_ids(messages, "raw")
    text = chat.raw_prompt_text(messages)
    bos = [] if loaded.tokenizer.bos_token_id is None else [loaded.tokenizer.bos_token_id]
    assert ids == [*bos, *loaded.tokenizer.encode(text, add_special_tokens=False)]
    assert ids[-1] not in loaded.policy.config.eos_token_ids


def test_a_value_prompt_has_the_familys_markup(loaded: Loaded, messages: list[chat.Message]) -> None:
    assert markup_of(loaded.tokenizer) == loaded.real.markup
    ids = loaded.value.prompt_ids(messages)
    text = chat.value_prompt_text(messages, loaded.real.markup)
    assert ids == loaded.tokenizer.encode(text, add_special_tokens=False)


def test_the_form_is_chat_and_thinking_off_is_said_where_there_is_a_switch(loaded: Loaded) -> None:
    found = settle(loaded.policy.name, loaded.tokenizer)
    assert found.form == "chat"
    assert any("enable_thinking=False" in line for line in found.why) == loaded.real.knows_thinking


def test_the_stop_ids_are_those_of_both_files_and_end_a_turn(loaded: Loaded) -> None:
    ids = loaded.policy.config.eos_token_ids
    assert sorted(ids) == sorted({*loaded.real.eos, *loaded.real.generation_eos})
    names = loaded.tokenizer.convert_ids_to_tokens(sorted(ids))
    assert sorted(names) == sorted(loaded.real.stops)
    assert loaded.real.markup.turn_end in names


SEEDS, LENGTH = (0, 1, 2), 24


def sampled(loaded: Loaded, threshold: float, seed: int, **knobs: Any) -> sia_jax.Samples:
    """Replies to three conversations."""
    policy, value = loaded.policy, loaded.value
    asked = [[{"role": "user", "content": content}] for content in ("Hi", "Why?", "卵は何分? 🍳")]
    prompt = sia_jax.Prompt.pack(
        [policy.prompt_ids(messages) for messages in asked],
        [value.prompt_ids(messages) for messages in asked],
        policy_length=32,
        value_length=32,
    )
    config = sia_jax.SamplerConfig(policy=policy.config, value=value.config, max_new_tokens=LENGTH)
    return sia_jax.sample(
        sia_jax.SteeringParams(policy.params, value.params),
        prompt,
        threshold,
        rng_key=jax.random.key(seed),
        config=config,
        knobs=sia_jax.Knobs(**knobs),
    )


@pytest.fixture(scope="module")
def middle(loaded: Loaded) -> float:
    """An entropy that half of the tokens exceed."""
    return float(np.median(np.asarray(sampled(loaded, np.inf, 100).entropy)))


@pytest.mark.parametrize("steered", ["all", "some", "none"])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_id_without_a_token_is_drawn(loaded: Loaded, middle: float, steered: str, seed: int) -> None:
    samples = sampled(loaded, {"all": -np.inf, "some": middle, "none": np.inf}[steered], seed)
    assert np.asarray(samples.lengths).min() == LENGTH  # among so many, none ends a reply
    tokens = np.asarray(samples.tokens)
    assert tokens.max() < loaded.real.tokens
    assert None not in loaded.tokenizer.convert_ids_to_tokens(tokens.reshape(-1).tolist())
    share = np.asarray(samples.junction).mean()
    assert share == {"all": 1, "none": 0}.get(steered, share)
    assert 0 < share < 1 or steered != "some"


def test_a_reply_ends_in_each_of_the_stop_ids_and_only_there(loaded: Loaded, middle: float) -> None:
    ids = sorted(loaded.policy.config.eos_token_ids)
    seen = set()
    for seed in range(4):
        samples = sampled(loaded, middle, seed, bias_ids=ids, bias=[9.0] * len(ids))
        for tokens, length in zip(np.asarray(samples.tokens), np.asarray(samples.lengths), strict=True):
            assert not set(tokens[: length - 1].tolist()) & set(ids)
            if length < LENGTH:
                seen.add(int(tokens[length - 1]))
    assert seen == set(ids)


TEXTS = (
    "Ordinary English, it's 1999; don't  you   see?\n\n\tYes.",
    "крем-брюле, 卵は何分ですか?『本』 한국어 العربية ไทย हिन्दी",
    "🧑‍🍳👩🏽‍🚀🏳️‍🌈🇪🇺 and 👍🏿, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓂀",
    "e\u0301a\u0308\u0323 Z\u0351\u036b\u0343\u036a\u0302 \u1112\u1161\u11ab",
    "\u0000\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff\ufffd\ufffd",
    "def f(x):\r\n    return x ** 2  # <|im_end|> <|eot_id|> <think></think>",
)


def joined(loaded: Loaded, ids: list[int], skip: bool) -> None:
    """What comes token by token is the text of all, and never more than that."""
    whole = loaded.tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    decoder, text = IncrementalDecoder(loaded.tokenizer, skip_special_tokens=skip), ""
    for token in ids:
        text += decoder.push(token)
        assert whole.startswith(text)
    assert text + decoder.finish() == whole
    pieces = token_pieces(loaded.tokenizer, ids, skip_special_tokens=skip)
    assert (len(pieces), "".join(pieces)) == (len(ids), whole)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_streamed_token_by_token_is_the_text(loaded: Loaded, text: str, skip: bool) -> None:
    joined(loaded, loaded.tokenizer.encode(text, add_special_tokens=False), skip)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_any_ids_streamed_are_the_text_of_all(loaded: Loaded, seed: int, skip: bool) -> None:
    generator = np.random.default_rng(seed)
    # Ids from all over, and many of single bytes (the first 256), which seldom make characters.
    ids = np.concatenate([generator.integers(0, loaded.real.tokens, 120), generator.integers(0, 256, 120)])
    joined(loaded, generator.permutation(ids).tolist(), skip)


def test_characters_are_never_cut(loaded: Loaded) -> None:
    text = "卵🍳e\u0301👩🏽‍🚀"
    names = {token: i for token, i in loaded.tokenizer.get_vocab().items() if len(token) == 1}
    assert len(names) >= 256
    ids = [names[_byte_name(byte)] for byte in text.encode()]
    decoder = IncrementalDecoder(loaded.tokenizer)
    pieces = [decoder.push(token) for token in ids]
    assert [piece for piece in pieces if piece] == list(text)


def _byte_name(byte: int) -> str:
    """Of a byte in the byte-level alphabet: printable Latin-1 stands for itself, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [other for other in range(256) if other not in printable]
    return chr(byte) if byte in printable else chr(256 + rest.index(byte))


def test_a_reply_of_the_program_is_the_text_of_its_ids(
    loaded: Loaded, middle: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "replies.jsonl"
    generate.main(
        generate.Args(
            policy=str(loaded.folder / "tiny"),
            value=str(loaded.folder / "value"),
            threshold=middle,
            prompt=("Hi", "Why?", "卵は何分? 🍳"),
            max_new_tokens=LENGTH,
            output=str(output),
        )
    )
    said = capsys.readouterr().err
    assert said.count("prompt form: chat") == 1
    assert ("enable_thinking=False" in said) == loaded.real.knows_thinking
    for line in map(json.loads, output.read_text(encoding="utf-8").splitlines()):
        assert line["settings"]["prompt_form"] == "chat"
        assert line["settings"]["thinking"] is False
        assert max(line["tokens"]) < loaded.real.tokens
        assert line["text"] == loaded.tokenizer.decode(
            line["tokens"], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
