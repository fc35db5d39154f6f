"""Files of densely steered replies, as `decode.generate --threshold=-inf` writes them, prompt by prompt."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sia_jax.evaluation.risk import SteeredReply
from sia_jax.files.reading import check_file
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import parse_object, stream_lines
from sia_jax.runs.journal import is_finite, place_in

Read = TypeVar("Read")


def read_by_prompt(path: Path, read: Callable[[dict[str, Any]], Read]) -> list[list[Read]]:
    """What is read of each line of a file, the lines of one prompt together; in the order of the prompts.

    Args:
      path: JSONL of `decode.generate`, steered at every token.
      read: of a line; raises ValueError or KeyError for one that is no such reply.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is no such reply, or no line.
    """
    check_file(path, "file of replies")
    found: dict[int, list[Read]] = {}
    with path.open("rb") as file:
        for number, line in stream_lines(file, str(path)):
            place = f"{path}, line {number}"
            record = parse_object(line, place, is_line=True)
            try:
                reply = read(record)
                found.setdefault(place_in(record, "index"), []).append(reply)
            except (ValueError, KeyError) as error:
                raise ValueError(
                    f"{place}: this is no reply of decode.generate --threshold=-inf ({error})"
                ) from None
    if not found:
        raise ValueError(f"{path}: there is no reply in it")
    return [own for _, own in sorted(found.items())]


def dense_reply(record: Mapping[str, Any]) -> SteeredReply:
    """A reply that was steered at every token.

    Raises:
      KeyError, ValueError: it lacks something, or was not.
    """
    entropy, shifted, junction = steered_lists(record)
    if not all(junction):
        raise ValueError(f"{junction.count(False)} of {len(junction)} tokens were not steered")
    return SteeredReply(np.array(entropy, np.float32), np.array(shifted, bool))


def steered_lists(record: Mapping[str, Any]) -> tuple[list[float], list[bool], list[bool]]:
    """Entropy in nats, whether it was shifted and whether it was steered, of each token of a line.

    Raises:
      KeyError, ValueError: one of them is not there, or is no list of these.
    """
    lists = {name: record[name] for name in ("entropy", "shifted", "junction")}
    for name, values in lists.items():
        if not isinstance(values, list):
            raise ValueError(f"{name} must be a list, got {shown_value(values, 60)}")
    entropy, shifted, junction = lists.values()
    if not len(entropy) == len(shifted) == len(junction):
        raise ValueError(f"lists of {len(entropy)}, {len(shifted)} and {len(junction)} tokens")
    if not all(is_finite(h) and abs(h) < 1e30 for h in entropy):
        raise ValueError("entropy must be numbers")
    if any(type(flag) is not bool for flag in [*shifted, *junction]):
        raise ValueError("shifted and junction must be true or false")
    return entropy, shifted, junction
