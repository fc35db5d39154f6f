"""What a tokenizer puts around a text, and the one way in which texts become ids here.

Tokenizers differ in what their post-processor adds: nothing (Qwen3), a BOS in front (Llama 3), a BOS and an
EOS. What stands in front of a text belongs to it, because the model was trained with it there. What stands
behind it does not: a prompt would end in a stop token, and a reward would be read at another place.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:
    Tokenizer = Any  # transformers takes seconds to import; who passes a tokenizer has paid them

_PROBE = "a"


def exact_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text to which nothing is added; the names of special tokens in it become those tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def opened_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text with what the tokenizer puts in front, once, whichever of the two provides it."""
    opening, ids = opening_ids(tokenizer), exact_ids(tokenizer, text)
    return ids if ids[: len(opening)] == opening else [*opening, *ids]


def opening_ids(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer puts in front of every text: often a BOS, or nothing."""
    plain = exact_ids(tokenizer, _PROBE)
    whole = list(tokenizer.encode(_PROBE))
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    return []
