"""The rewards in a file of replies, of `decode.demo` or `decode.evaluate`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sia_jax.data.columns import names_of
from sia_jax.evaluation.comparison import Measure
from sia_jax.files.reading import check_file
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import parse_object, stream_lines
from sia_jax.runs.journal import number_in, place_in


@dataclass(frozen=True)
class Rewarded:
    """The reward of one reply."""

    method: str
    index: int
    """Of the prompt."""
    seed: int
    """Under which it was replied to; 0 where the record does not say."""
    reward: float | None
    """None where the reward model could not score the reply."""


def read_rewards(replies: Path, measure: Measure) -> Iterator[Rewarded]:
    """The rewards of a file, in order.

    Args:
      replies: JSONL, a reply on each line.
      measure: which of the rewards.

    Raises:
      FileNotFoundError, ValueError: no such file, or a line that is no reply with a method, an index and a
        reward.
    """
    check_file(replies, "file of replies")
    with replies.open("rb") as file:
        for number, line in stream_lines(file, str(replies)):
            place = f"{replies}, line {number}"
            record = parse_object(line, place, is_line=True)
            try:
                method, index = record["method"], place_in(record, "index")
                is_unscored = measure == "proxy" and record["proxy"] is None
                reward = None if is_unscored else number_in(record, measure)
                seed = place_in(record, "seed") if "seed" in record else 0
                if not isinstance(method, str):
                    raise ValueError(f"method must be a text, got {shown_value(method, 60)}")
            except (ValueError, KeyError) as error:
                raise ValueError(
                    f"{place}: this is no reply with a method, an index and a {measure} reward ({error})"
                ) from None
            yield Rewarded(method, index, seed, reward)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The differences between two methods, reply by reply."""

    differences: np.ndarray
    """[K] of the first method's reward minus the second's, for the same prompt and seed."""
    prompts: list[int]
    """[K] the prompt of each."""
    left_out: int
    """Pairs of which one reply has no reward."""


def read_pairs(replies: Path, pair: str, measure: Measure) -> Pairs:
    """The differences between two methods of a file of replies.

    Args:
      replies: the file; or what decode.evaluate has written beside it, results.json or the folder of both.
      pair: of methods, ONE:OTHER.
      measure: which of the rewards.

    Raises:
      FileNotFoundError, ValueError: no such file, none of such replies, or methods that did not reply to the
        same prompts under the same seeds, once each.
    """
    if replies.name == "results.json":
        replies = replies.with_name("replies.jsonl")
    if replies.is_dir():
        replies /= "replies.jsonl"
    found: dict[str, dict[tuple[int, int], float | None]] = {}
    for reply in read_rewards(replies, measure):
        own, place = found.setdefault(reply.method, {}), (reply.index, reply.seed)
        if place in own:
            raise ValueError(
                f"{replies}: {shown_value(reply.method, 60)} has two replies to prompt {reply.index} under "
                f"seed {reply.seed}; keep one"
            )
        own[place] = reply.reward
    one, _, other = pair.partition(":")
    if one not in found or other not in found or found[one].keys() != found[other].keys():
        raise ValueError(
            f"{replies} has no replies of both methods of {pair} to the same prompts under the same seeds, "
            f"only of {names_of(found)}"
        )
    differences, prompts = [], []
    for place in sorted(found[one]):
        first, second = found[one][place], found[other][place]
        if first is not None and second is not None:
            differences.append(first - second)
            prompts.append(place[0])
    return Pairs(np.array(differences, np.float64), prompts, len(found[one]) - len(prompts))
