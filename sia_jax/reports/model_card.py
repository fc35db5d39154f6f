"""The model card of a value model: README.md, whose front matter the Hugging Face Hub reads.

The front matter has the Hub's own keys (https://huggingface.co/docs/hub/model-cards, which says what each is
for): base_model, library_name, license, tags, metrics and model-index. Every value in it is JSON, which YAML
holds.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.checkpoints.hub import checkpoint_name, expanded
from sia_jax.files.shown import shown_line
from sia_jax.files.writing import write_text
from sia_jax.reports import markdown

CARD = "README.md"
TAGS = ("value-model", "sparse-inference-time-alignment", "steering", "jax")
_LICENCE = r"[a-z0-9][a-z0-9.+-]{0,48}"


@dataclass(frozen=True)
class Metric:
    """A number that says how good a value model is."""

    name: str
    """As people read it: "reward of the steered policy"."""
    kind: str
    """As the Hub sorts it: "reward"."""
    value: float
    said: str
    """The number with its interval, where there is one."""
    prompts: str
    """On which prompts: "validation.jsonl, 100 prompts"."""


@dataclass(frozen=True)
class ValueCard:
    """What is to be known of a value model."""

    name: str
    policy: str
    """Which it steers, or was trained on: a folder or a Hub id."""
    fingerprint: str
    """Of the policy's weights."""
    data: Sequence[str]
    """What it learned from, a sentence each."""
    reward: str
    """What gave the rewards."""
    metrics: Sequence[Metric]
    steering: str
    """Where and how strongly it was tried: "threshold 1.2, beta 1"."""
    command: str
    """By which it was made."""
    made_by: str
    """By which software."""
    licence: str | None = None
    """One of the Hub's identifiers, such as apache-2.0; None: nobody has said."""
    base_model: str | None = None
    """The policy's id on the Hub; None: `policy`, if that is one."""


def check_licence(licence: str | None, option: str) -> None:
    """It can be one of the Hub's identifiers.

    Raises:
      ValueError: it cannot.
    """
    if licence is not None and not re.fullmatch(_LICENCE, licence):
        raise ValueError(
            f"{option} must be an identifier of a licence as the Hub has them, such as apache-2.0, mit or "
            f"other, got {licence!r}"
        )


def hub_id(name: str) -> str | None:
    """The repository's id on the Hub that a policy was named by; None: it was a folder.

    Args:
      name: a folder, or a Hub id with a folder in it or not.
    """
    if expanded(name).exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+){0,2}", name):
        return None
    return "/".join(name.split("/")[:2])


def write_card(card: ValueCard, folder: Path) -> None:
    """README.md in a value model's folder; one that is there is replaced."""
    write_text(folder / CARD, card_text(card))


def card_text(card: ValueCard) -> str:
    """The card, front matter first."""
    rows = [(shown_line(one.name), shown_line(one.said), shown_line(one.prompts)) for one in card.metrics]
    table = markdown.table(("metric", "value", "on"), rows)
    learned = "\n".join(f"- {shown_line(sentence)}" for sentence in card.data)
    licence = (
        "Not stated; what it was trained from, the policy among it, has licences of its own."
        if card.licence is None
        else f"{card.licence}; that of the policy holds for the policy."
    )
    said = {
        "front": _front_matter(card),
        "title": shown_line(card.name),
        "policy": shown_line(checkpoint_name(card.policy)),
        "fingerprint": card.fingerprint[:16],
        "generate": shown_line(_quoted(card)),
        "made_by": shown_line(card.made_by),
        **{name: shown_line(getattr(card, name)) for name in ("reward", "steering", "command")},
        **{"learned": learned, "table": table, "licence": licence},
    }
    return _CARD.format(**said)


_CARD = """---
{front}---
# {title}

A value model of [Sparse Inference-time Alignment](https://arxiv.org/abs/2602.21215), in the files of
sia_jax: from any prefix of a reply it predicts the reward of the whole reply, and so steers the policy where
the policy is uncertain. It holds an adapter and a head, or a head alone, and steers this one policy:

- policy: `{policy}`, whose weights have the fingerprint `{fingerprint}`
- reward: {reward}
- thresholds: {steering}

```sh
sia generate --policy {generate} --value . --prompt "..." --compare
```

## What it learned from

{learned}

## How good it is

{table}
In brackets 95% intervals over prompts. Rewards have the unit of the reward that is named above.

## How it was made

```sh
{command}
```

By {made_by}.

## Licence

{licence}
"""


def _quoted(card: ValueCard) -> str:
    return card.base_model or hub_id(card.policy) or checkpoint_name(card.policy)


def _front_matter(card: ValueCard) -> str:
    base = card.base_model or hub_id(card.policy)
    fields: dict[str, Any] = {"library_name": "sia_jax", "tags": list(TAGS)}
    if base is not None:
        fields = {"base_model": base, "base_model_relation": "adapter"} | fields
    if card.licence is not None:
        fields["license"] = card.licence
    if card.metrics:
        fields["metrics"] = list(dict.fromkeys(one.kind for one in card.metrics))
        fields["model-index"] = [{"name": shown_line(card.name), "results": list(map(_result, card.metrics))}]
    return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items())


def _result(metric: Metric) -> dict[str, Any]:
    """As the Hub's model-index has one."""
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": "prompts", "name": shown_line(metric.prompts)},
        "metrics": [{"type": metric.kind, "name": shown_line(metric.name), "value": metric.value}],
    }
