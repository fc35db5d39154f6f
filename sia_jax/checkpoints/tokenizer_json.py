"""tokenizer.json before its library reads it: no chain of steps makes a text longer than memory is.

A step puts several characters in the place of one, and steps follow each other: of one letter, 36 that double
it make 2^36. The library bounds nothing, and ends the process where the memory ends.
"""

import json
import math
from pathlib import Path
from typing import Any

MOST_GROWTH = 4096
"""Times that a text may become longer, if all steps did their worst. Those of Qwen3 would reach 6."""

# Bytes of what comes out for one that goes in, at most.
_GROWTH = {
    **dict.fromkeys(("NFKC", "NFKD", "Precompiled"), 11.0),
    **dict.fromkeys(("NFC", "NFD", "Metaspace"), 3.0),
    **{"BertNormalizer": 5.0, "ByteLevel": 2.0, "Lowercase": 1.5},
}
_CHAINS = ("normalizers", "pretokenizers", "processors", "decoders")
_ENCODING = ("normalizer", "pre_tokenizer", "post_processor")
_DECODING = ("decoder",)


def check_growth(folder: Path) -> None:
    """The steps in a folder's tokenizer.json do not make a text longer than `MOST_GROWTH` times.

    Args:
      folder: a checkpoint, with or without such a file; one that is no JSON is left to its reader.

    Raises:
      ValueError: they do.
    """
    for path in sorted(folder.glob("tokenizer.*json")):  # or tokenizer.4.0.0.json, which transformers prefers
        try:
            raw = json.loads(path.read_bytes())
            growths = [math.prod(_growth(raw.get(name)) for name in way) for way in (_ENCODING, _DECODING)]
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        if max(growths) > MOST_GROWTH:
            raise ValueError(
                f"{path}: its steps may make a text more than {MOST_GROWTH:,} times longer, expected less; "
                "copy the file from the original checkpoint"
            )


def _growth(step: Any) -> float:
    """How many times longer a step can make a text; 1 for what is no step, which its reader refuses."""
    if not isinstance(step, dict):
        return 1.0
    kind = step.get("type")
    if kind == "Sequence":
        chains = [step[name] for name in _CHAINS if isinstance(step.get(name), list)]
        return math.prod(_growth(inner) for chain in chains for inner in chain)
    if kind == "Replace":
        return _growth_of_replacing(step.get("pattern"), step.get("content"))
    if kind == "TemplateProcessing":
        pieces = step.get("single")
        whole = [piece for piece in pieces if "Sequence" in piece] if isinstance(pieces, list) else []
        return float(max(1, len(whole)))
    return _GROWTH.get(kind, 1.0) if isinstance(kind, str) else 1.0


def _growth_of_replacing(pattern: Any, content: Any) -> float:
    """Of a text in place of another, or of what a pattern matches, which may be nothing at every place."""
    if not isinstance(pattern, dict) or not isinstance(content, str):
        return 1.0
    size, replaced = len(content.encode("utf-8", "replace")), pattern.get("String")
    if isinstance(replaced, str):
        return max(1.0, size / max(1, len(replaced.encode("utf-8", "replace"))))
    return 1.0 + size
