"""Tiny tokenizers in the file layout of the real Qwen3 and Llama-3 ones, made from an invented corpus.

Each is a byte-level BPE (256 byte tokens first, so that any text round-trips) with the family's own splitting
rule, special tokens, template and post-processor. The files are the same bytes every time.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.normalizers import NFC
from tokenizers.processors import ByteLevel as ByteLevelProcessor
from tokenizers.processors import Sequence as Processors
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sia_jax.world.tokenizer import QWEN3_SPLIT, added_tokens, train_bpe

CORPUS = (
    "How long should I boil an egg? Put the egg into boiling water and wait for seven minutes.",
    "What shall I cook for the children this evening? The children would like pancakes with apples.",
    "The train to the mountains leaves in the morning, and the evening train comes back at nine.",
    "Please tell me how to water the plants on the balcony. Water them in the morning, before it is hot.",
    "Could you help me with the letter to the landlord? Of course: say what is broken, and since when.",
    "In the winter the mountains are white, and the children build a house of snow before the evening.",
    "It's a long letter; I'm sure they'll answer it, and we've waited for longer answers than that.",
    "Which of the three libraries is open on the 14th? The one behind the station, from 9:30 to 17:45.",
)
"""What the merges are learnt from."""

QWEN3_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
"""Added tokens that decoding may skip, in the order of their ids."""

QWEN3_PLAIN = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
"""Added tokens that decoding keeps (special: false), after the special ones."""

LLAMA3_SPECIAL = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
)
"""The first of the real tokenizer's 256 special tokens, in the order of their ids."""

_LLAMA3_SPLIT = QWEN3_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

# ChatML as Qwen3 means it: a think block opens an assistant turn after the last user turn if it has thoughts
# or is the final one; earlier turns lose their thoughts; enable_thinking=False ends in an empty block.
QWEN3_TEMPLATE = """\
{%- set last = namespace(user=-1) %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- set last.user = loop.index0 %}
{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- set turn = namespace(thoughts='', text=message.content) %}
{%- if message.role == 'assistant' and '</think>' in message.content %}
{%- set parts = message.content.split('</think>') %}
{%- set turn.thoughts = parts[0].split('<think>')[-1].strip('\\n') %}
{%- set turn.text = parts[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and loop.index0 > last.user and (loop.last or turn.thoughts) %}
{{- '<think>\\n' + turn.thoughts + '\\n</think>\\n\\n' + turn.text.lstrip('\\n') }}
{%- else %}
{{- turn.text }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""

# The BOS, a system block that is there even without a system message and carries a date, trimmed contents.
LLAMA3_TEMPLATE = """\
{%- set chat = namespace(system='', turns=messages) %}
{%- if messages[0].role == 'system' %}
{%- set chat.system = messages[0].content | trim %}
{%- set chat.turns = messages[1:] %}
{%- endif %}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- 'Cutting Knowledge Date: December 2023\\n' }}
{{- 'Today Date: ' + date_string | default('26 Jul 2024') + '\\n\\n' }}
{{- chat.system + '<|eot_id|>' }}
{%- for message in chat.turns %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{{- message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""


def save_qwen3_tokenizer(
    folder: Path, vocab_size: int = 320, jinja_file: bool = False
) -> PreTrainedTokenizerBase:
    """Write a Qwen3 tokenizer (tokenizer.json, tokenizer_config.json) and load it back.

    Args:
      folder: made if need be.
      vocab_size: tokens of the BPE; the 26 added tokens take the ids that follow.
      jinja_file: the template in chat_template.jinja, as in Skywork-Reward-V2, and not in the config.

    Raises:
      ValueError: the corpus does not yield so many tokens.
    """
    tokenizer = train_bpe(CORPUS, vocab_size, normalizer=NFC())
    tokenizer.post_processor = ByteLevelProcessor(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in QWEN3_SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in QWEN3_PLAIN])
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added_tokens(tokenizer),
        "additional_special_tokens": list(QWEN3_SPECIAL[1:]),
        "bos_token": None,
        "chat_template": QWEN3_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    return _save(folder, tokenizer, config, jinja_file)


def save_llama3_tokenizer(folder: Path, vocab_size: int = 320) -> PreTrainedTokenizerBase:
    """Write a Llama-3 Instruct tokenizer, whose post-processor puts the BOS in front, and load it back.

    Args:
      folder: made if need be.
      vocab_size: tokens of the BPE; the 11 special tokens take the ids that follow.

    Raises:
      ValueError: the corpus does not yield so many tokens.
    """
    tokenizer = train_bpe(CORPUS, vocab_size, split=_LLAMA3_SPLIT, ignore_merges=True)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in LLAMA3_SPECIAL])
    bos = LLAMA3_SPECIAL[0]
    tokenizer.post_processor = Processors(
        [
            ByteLevelProcessor(trim_offsets=True),
            TemplateProcessing(
                single=f"{bos} $A",
                pair=f"{bos} $A {bos}:1 $B:1",
                special_tokens=[(bos, tokenizer.token_to_id(bos))],
            ),
        ]
    )
    config = {
        "added_tokens_decoder": added_tokens(tokenizer),
        "bos_token": bos,
        "chat_template": LLAMA3_TEMPLATE,
        "clean_up_tokenization_spaces": True,
        "eos_token": "<|eot_id|>",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return _save(folder, tokenizer, config, jinja_file=False)


def _save(
    folder: Path, tokenizer: Tokenizer, config: dict[str, Any], jinja_file: bool
) -> PreTrainedTokenizerBase:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if jinja_file:
        (folder / "chat_template.jinja").write_text(config.pop("chat_template"), encoding="utf-8")
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
