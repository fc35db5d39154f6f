"""Rewards that are programs: a Python function from conversations to numbers, named module:function.

The function takes a list of conversations, each a list of {"role": ..., "content": text} that ends with the
assistant, and returns a list or an array with one number for each. A number that is not finite says that this
reply has no reward; an exception, that the conversation has none, whatever the reply. How a batch is made up
must not matter: one that fails is asked again, conversation by conversation.
"""

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sia_jax.extras import MissingExtraError
from sia_jax.files.shown import shown_line
from sia_jax.rewards.labelling import Outcome
from sia_jax.text.chat import Message

PROVENANCE = "reward_provenance"
"""A function that a module may have beside its rewards: what they are made of, and since when, as texts."""

LARGEST = float(np.finfo(np.float32).max)
"""Of a reward: they are compared, stored and learned from in float32."""

_PROBES = tuple(
    ({"role": "user", "content": "How are you?"}, {"role": "assistant", "content": reply})
    for reply in ("Very well, thank you.", "Not so well.")
)
_MOST = 200
"""Characters of a foreign message."""


class _NoResultsError(Exception):
    """What a function returned is not one result for each conversation."""


@dataclass(frozen=True)
class RewardFunction:
    """A reward that is a program."""

    name: str
    """module:function."""
    call: Callable[[list[list[dict[str, str]]]], Any]
    sha256: str = ""
    """Of the source file: what the module imports is not looked into."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the module says that its rewards are made of."""

    @property
    def fingerprint(self) -> str:
        """What a run that goes on knows this version by."""
        return self.sha256[:16]

    def score(self, conversations: Sequence[Sequence[Message]]) -> list[Outcome]:
        """The rewards of conversations, by their places; of no tokens.

        Those for which the function raises have none, for the reason "failed"; what is no finite number in
        float32 is none.

        Args:
          conversations: each ends with the assistant.
        """
        if not conversations:
            return []
        try:
            results = self.results(conversations)
        except Exception as error:
            if len(conversations) > 1:  # only alone it shows whose fault it is
                alone = [self.score([one])[0] for one in conversations]
                return [replace(outcome, index=place) for place, outcome in enumerate(alone)]
            return [Outcome(0, 0, None, "failed", f"{self.name} {_told(error)}")]
        return [self._outcome(place, result) for place, result in enumerate(results)]

    def results(self, conversations: Sequence[Sequence[Message]]) -> Sequence[Any]:
        """What the function returns: anything, for each conversation.

        Args:
          conversations: the function gets copies, which it may change.

        Raises:
          Exception: whatever the function raises, or that it returned something else.
        """
        found = self.call([[dict(message) for message in one] for one in conversations])
        results = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(results, list | tuple):
            raise _NoResultsError(f"returned a {type(found).__name__}, expected a list or an array")
        if len(results) != len(conversations):
            raise _NoResultsError(f"returned a list of {len(results)}, expected one of {len(conversations)}")
        return results

    def _outcome(self, place: int, result: Any) -> Outcome:
        if not is_number(result):
            return Outcome(place, 0, None, "not a number", f"{self.name} {_refusal(result)}")
        number = _float(result)
        if not abs(number) <= LARGEST:
            return Outcome(place, 0, None, "not finite", f"the reward of {self.name} is {number}")
        return Outcome(place, 0, number)


def load_function(name: str, option: str) -> RewardFunction:
    """The function of a name, tried out on an invented conversation.

    Args:
      name: module:function; a module that is installed, or lies in the current folder.
      option: what the user calls it, for errors.

    Raises:
      ValueError: no such name, a module that cannot be imported or has no such function, or one that does
        not give a number for each conversation. A ValueError of the function's own is no fault: it has no
        reward for that conversation.
      MissingExtraError: a package of an extra is missing.
    """
    path, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*path.split("."), attribute)):
        raise ValueError(
            f"{option} must be MODULE:FUNCTION, such as sia_jax.rewards.sentiment:vader, got "
            f"{shown_line(name, _MOST)!r}"
        )
    module = _imported(path, f"{option} {name}")
    if not hasattr(module, attribute):
        raise ValueError(f"{option} {name}: {module.__file__} has no {attribute}; name a function of it")
    call = getattr(module, attribute)
    if not callable(call):
        raise ValueError(f"{option} {name}: it is a {type(call).__name__}, which cannot be called")
    function = RewardFunction(name, call, _sha256(module, call), _provenance(module, f"{option} {name}"))
    _probe(function, option)
    return function


def is_number(result: Any) -> bool:
    """Whether something is a number as Python and NumPy have them; a truth value is none."""
    return isinstance(result, Real) and not isinstance(result, bool)


def _imported(path: str, name: str) -> ModuleType:
    """A module; the current folder is looked through last, so that nothing in it hides what is installed."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(path)
    except MissingExtraError:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{name}: the module {path} cannot be imported: {_told(error)}; start the program in the folder "
            "in which it lies, or install it"
        ) from error
    if getattr(module, "__file__", None) is None:
        raise ValueError(
            f"{name}: {path} has no source file, by which a run that goes on could tell another version; "
            "name a function in a file"
        )
    return module


def _sha256(module: ModuleType, call: Callable[..., Any]) -> str:
    """Of the file of the module, and of that in which the function was defined."""
    own = sys.modules.get(str(getattr(call, "__module__", None)))
    files = dict.fromkeys(getattr(one, "__file__", None) for one in (module, own))
    digest = hashlib.sha256()
    for file in files:
        digest.update(Path(file).read_bytes() if file else b"")
    return digest.hexdigest()


def _provenance(module: ModuleType, name: str) -> dict[str, str]:
    if not hasattr(module, PROVENANCE):
        return {}
    try:
        found = getattr(module, PROVENANCE)()
    except Exception as error:
        raise ValueError(f"{name}: its {PROVENANCE}() {_told(error)}") from error
    pairs = found.items() if isinstance(found, dict) else [(None, None)]
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise ValueError(
            f"{name}: its {PROVENANCE}() must return texts by names, got a {type(found).__name__}"
        )
    return {shown_line(what, _MOST): shown_line(text, _MOST) for what, text in pairs}


def _probe(function: RewardFunction, option: str) -> None:
    """Try it on two invented conversations.

    Raises:
      ValueError: it fails otherwise than by a ValueError, or gives something else than two numbers.
    """
    wrong = ""
    try:
        results = function.results(_PROBES)
        wrong = next((_refusal(result) for result in results if not is_number(result)), "")
    except ValueError:
        pass  # it has no reward for such a conversation
    except MissingExtraError:
        raise
    except Exception as error:
        wrong = _told(error)
    if wrong:
        raise ValueError(
            f"{option} {function.name}: tried out on {len(_PROBES)} invented conversations, it {wrong}; a "
            'reward function takes a list of conversations, lists of {"role", "content"}, and returns one '
            "number for each"
        )


def _told(error: BaseException) -> str:
    """'raised KeyError: ...', with a foreign text in its bounds."""
    if isinstance(error, _NoResultsError):
        return str(error)
    return f"raised {type(error).__name__}: {shown_line(str(error), _MOST)}"


def _refusal(result: Any) -> str:
    return f"returned {'None' if result is None else f'a {type(result).__name__}'}, expected a number"


def _float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:  # an integer of hundreds of digits
        return float("inf")
