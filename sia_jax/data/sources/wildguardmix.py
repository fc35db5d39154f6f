"""WildGuardMix: prompts, some with a response, and labels of harm."""

from collections.abc import Iterable, Iterator

from sia_jax.data.sources.conversations import Conversation, Rejected, conversation
from sia_jax.data.sources.rows import Row

WHAT = "WildGuardMix"
REQUIRED = ("prompt", "response", "response_harm_label")

UNLABELLED = "no response_harm_label"
"""Why most rows are left out: prompts without a response have no such label."""


def read_wildguardmix(rows: Iterable[Row]) -> Iterator[Conversation | Rejected]:
    """The rows that have a `response_harm_label`, 37,976 of the training set, as the paper counts.

    The label itself is not a reward and is not kept.

    Args:
      rows: of wildguard_train.parquet, say.

    Raises:
      ValueError: a row that is not of WildGuardMix.
    """
    for row in rows:
        if row.text("response_harm_label") is None:
            yield Rejected(UNLABELLED, row.place)
            continue
        prompt = [{"role": "user", "content": row.text("prompt") or ""}]
        yield conversation(row.place, row.name, prompt, row.text("response"))
