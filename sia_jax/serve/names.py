"""What tokens are called on the wire."""

import threading
from collections.abc import Iterable

from sia_jax.text.decoder import token_text
from sia_jax.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"


class TokenNames:
    """The texts of single tokens; of one that is part of a character, the tokenizer's own name.

    Args:
      tokenizer: the policy's; None: a token is called by its id.
      lock: held while the tokenizer is used.
    """

    def __init__(self, tokenizer: Tokenizer | None, lock: threading.Lock):
        self._tokenizer, self._lock = tokenizer, lock
        self._known: dict[int, tuple[str, bool]] = {}

    def learn(self, ids: Iterable[int]) -> None:
        """Look up names that will be asked for, all at once; not in the event loop."""
        new = {id_ for id_ in ids if id_ >= 0 and id_ not in self._known}
        if not new:
            return
        with self._lock:
            found = {id_: self._look_up(id_) for id_ in new}
        self._known.update(found)

    def name(self, id_: int) -> str:
        """Of an id that was learnt, or is now."""
        return self._get(id_)[0]

    def octets(self, id_: int) -> list[int] | None:
        """The bytes of its text in UTF-8; None: it is part of a character."""
        name, whole = self._get(id_)
        return list(name.encode()) if whole else None

    def _get(self, id_: int) -> tuple[str, bool]:
        known = self._known
        if id_ not in known:
            self.learn([id_])
            known = self._known
        return known[id_]

    def _look_up(self, id_: int) -> tuple[str, bool]:
        if self._tokenizer is None:
            return f"token_id:{id_}", False
        whole = str(self._tokenizer.decode([id_], clean_up_tokenization_spaces=False))
        return token_text(self._tokenizer, id_), _REPLACEMENT not in whole
