"""WildGuardMix: prompts, some with a response, and labels of harm."""

from collections.abc import Iterable, Iterator

from sia_jax.data.sources.conversations import Entry, Rejected, entry
from sia_jax.data.sources.rows import Row

WHAT = "WildGuardMix"
REQUIRED = ("prompt", "response", "response_harm_label")

UNLABELLED = "no response_harm_label"
"""Why most rows are left out: prompts without a response have no such label."""


def read_wildguardmix(rows: Iterable[Row], *, with_replies: bool = True) -> Iterator[Entry]:
    """The rows that have a `response_harm_label`, 37,976 of the training set, as the paper counts.

    The label itself is not a reward and is not kept.

    Args:
      rows: of wildguard_train.parquet, say.
      with_replies: False: the prompts of all rows, labelled or not.

    Raises:
      ValueError: a row that is not of WildGuardMix.
    """
    for row in rows:
        if with_replies and row.text("response_harm_label") is None:
            yield Rejected(UNLABELLED, row.place)
            continue
        prompt = [{"role": "user", "content": row.text("prompt") or ""}]
        yield entry(row.place, row.name, prompt, row.text("response"), with_reply=with_replies)
