"""Foreign text on its way to a terminal: nothing in it commands the terminal, or hides what stands there.

Names of files and tensors, chat templates' messages, prompts and replies come from others. A control
sequence in one of them could retitle the window, clear the screen or write over what was said before; an
override of the direction of writing shows a name as another.
"""

import re

_ESCAPED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and line feed, DEL, C1
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates of the direction
    "\ud800-\udfff]"  # halves of surrogate pairs, which no terminal can be sent
)
_DELETE = 0x7F


def shown(text: object) -> str:
    r"""A text as it may be printed: what would command the terminal is made visible.

    Tabs and ends of lines stay. C0 and DEL become their pictures (␛), the others their escapes (\x9b, \u202e,
    \udc80).

    Args:
      text: foreign, or a message with something foreign in it; anything else by its str.
    """
    return _ESCAPED.sub(_picture, str(text))


def shown_line(text: object, most: int | None = None) -> str:
    """`shown` on one line: every run of white space is one space.

    Args:
      text: as of `shown`.
      most: characters, the last of which is "…" where the text has more; None: all.
    """
    line = " ".join(shown(text).split())
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def shown_value(value: object, most: int = 300) -> str:
    """A foreign value in an error: its repr on one line, cut where it is long.

    Args:
      value: out of a file.
      most: characters.
    """
    return shown_line(repr(value), most)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == _DELETE:
        return "\u2421"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
