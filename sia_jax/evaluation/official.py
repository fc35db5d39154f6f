"""Results and thresholds in the forms of the official SIA code, for whatever reads those.

`results.json` is what its `evaluate.py` writes for one method: a JSON list with an object for each prompt.
`{"quantiles": {name: nats}}` is what its `evaluate.py --all_ratios_entropy` reads: one run for each value,
which it rounds to three digits. Source: https://github.com/hurunyi/SIA, evaluate.py and src/sia.py.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.engine.reply import Reply
from sia_jax.evaluation.comparison import Measured, Record
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import make_folder, write_text
from sia_jax.text.tokenizer import Tokenizer

_IDS, _MASK = "generated_tokens_ids", "rm_guided_tokens_mask"


@dataclass(frozen=True)
class OfficialPrompt:
    """A prompt as the official form tells it."""

    text: str
    """As the official code prompts base models, whatever the policy was given (`raw_prompt_text`)."""
    policy_text: str
    """What the policy was given, special tokens and all."""
    value_text: str
    policy_ids: Sequence[int]
    value_ids: Sequence[int]

    @classmethod
    def of(
        cls, text: str, policy: tuple[Tokenizer, Sequence[int]], value: tuple[Tokenizer, Sequence[int]]
    ) -> "OfficialPrompt":
        """Of both models' ids, each with the tokenizer that they are of."""
        (own, policy_ids), (other, value_ids) = policy, value

        def whole(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
            return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        return cls(text, whole(own, policy_ids), whole(other, value_ids), policy_ids, value_ids)


def official_fields(reply: Reply) -> dict[str, Any]:
    """What a record holds so that `official_results` can be written: ids and mask, joined by commas.

    Args:
      reply: its tokens, the stop token among them.
    """
    ids, mask = reply.tokens.tolist(), reply.junction.astype(int).tolist()
    return {"official": {_IDS: _joined(ids), _MASK: _joined(mask)}}


def check_official(fields: Any, length: float) -> None:
    """These are such fields.

    Args:
      fields: the file of the record may have been written by anybody.
      length: tokens of the reply.

    Raises:
      ValueError: they are not.
    """
    if not isinstance(fields, Mapping) or set(fields) != {_IDS, _MASK}:
        raise ValueError(f"official must be an object with {_IDS} and {_MASK}, got {shown_value(fields, 60)}")
    for name, each in ((_IDS, "[0-9]+"), (_MASK, "[01]")):
        text = fields[name]
        if not isinstance(text, str) or not re.fullmatch(f"({each}(,{each})*)?", text):
            raise ValueError(f"{name} must be numbers joined by commas, got {shown_value(text, 60)}")
        count = len(text.split(",")) if text else 0
        if count != length:
            raise ValueError(f"{name} must be of the reply's {length:g} tokens, got {count}")


def official_results(records: Iterable[Record], prompts: Sequence[OfficialPrompt]) -> list[dict[str, Any]]:
    """The replies of one method under one seed, in the order of the prompts; strict JSON.

    "elapsed" is the reply's share of the seconds of its batch. "reward", which the official code adds when it
    labels the file, is the proxy reward; a reply without one has none.

    Args:
      records: each with `official_fields`.
      prompts: all of the run's.
    """
    found = []
    for record in sorted(records, key=lambda record: record["index"]):
        prompt, own = prompts[record["index"]], record["official"]
        found.append(
            {
                "id": record["index"] + 1,
                "prompt": prompt.text,
                "result": record["text"],
                "llm_prompt": prompt.policy_text,
                "rm_prompt": prompt.value_text,
                "llm_prompt_tokens_ids": _joined(prompt.policy_ids),
                "rm_prompt_tokens_ids": _joined(prompt.value_ids),
                **own,
                "intervene_ratio": record["junctions"] / max(record["length"], 1),
                "elapsed": record["seconds"],
                **({} if record["proxy"] is None else {"reward": record["proxy"]}),
            }
        )
    return found


def write_official_results(
    folder: Path, measured: Iterable[Measured], prompts: Sequence[OfficialPrompt]
) -> None:
    """FOLDER/METHOD/seed-SEED/results.json of every method and seed; files that are there are replaced.

    Args:
      folder: made if need be.
      measured: the methods, by their keys.
      prompts: all of the run's.

    Raises:
      OSError: one cannot be written.
    """
    for one in measured:
        for seed in sorted({record["seed"] for record in one.records}):
            own = [record for record in one.records if record["seed"] == seed]
            path = folder / one.method.key / f"seed-{seed}" / "results.json"
            make_folder(path.parent)
            write_text(path, _json(official_results(own, prompts)))


def official_quantiles(thresholds: Mapping[float, float]) -> dict[str, Any]:
    """Thresholds as quantiles: that of a ratio r is the 1 - r quantile of the entropies.

    Args:
      thresholds: nats, by ratio.
    """
    return {"quantiles": {f"{1 - ratio:g}": thresholds[ratio] for ratio in sorted(thresholds, reverse=True)}}


def write_official_quantiles(path: Path, thresholds: Mapping[float, float]) -> None:
    """The file of `official_quantiles`; one that is there is replaced.

    Raises:
      OSError: it cannot be written.
    """
    make_folder(path.parent)
    write_text(path, _json(official_quantiles(thresholds)))


def _joined(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=4, allow_nan=False) + "\n"
