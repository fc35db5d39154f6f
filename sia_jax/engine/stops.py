"""Where a reply ends, as its request says: ids that the device looks for, and texts that the host does."""

from collections.abc import Sequence
from functools import lru_cache

from sia_jax.text.tokenizer import Tokenizer


def split_stops(tokenizer: Tokenizer | None, stops: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Ids of the special tokens among stop texts, and the texts that have to be looked for.

    Args:
      tokenizer: the policy's; None: it has none.
      stops: none of them empty.

    Raises:
      ValueError: texts without a tokenizer, or one that holds more than a special token.
    """
    if not stops:
        return [], ()
    if tokenizer is None:
        raise ValueError("a stop text needs a tokenizer, and the policy's folder has none; give stop_ids")
    special = _special(tokenizer)
    for stop in stops:
        within = sorted(token for token in special if token in stop and token != stop)
        if within:
            raise ValueError(
                f"the stop text {stop!r} holds more than the special token {within[0]!r}, and what is looked "
                "for is text without special tokens; give the token alone, or a text without it"
            )
    return [special[stop] for stop in stops if stop in special], tuple(s for s in stops if s not in special)


@lru_cache(maxsize=8)
def _special(tokenizer: Tokenizer) -> dict[str, int]:
    added = tokenizer.added_tokens_decoder
    return {str(token): index for index, token in added.items() if token.special}
