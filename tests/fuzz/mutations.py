"""Random changes of files: of bytes, of lines, and of what JSON says."""

import gzip
import json
import random
import re
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

MAX_GROWTH = 1 << 20
"""Bytes up to which a mutator may repeat what it finds."""

WORDS: tuple[bytes, ...] = (
    *(
        b"",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xe9",
        b"\n",
        b"\r",
        b"\r\n",
        b"\t",
        b" ",
        b'"',
        b"\\",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'""',
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"0x1",
    ),
    *(
        b"\\ud83d",
        b"\\u0000",
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
        b"\x1b[31m",
        b"PAR1",
        b"\x1f\x8b",
        b"PK\x03\x04",
    ),
    *(b"../../x", b"{{ 7 * 7 }}", b"<script>", b"%s%n", b"9" * 400, b"9" * 5000, b"[" * 500, b'{"a":' * 500),
)

_RAW = "raw text \ue000"
_RAW_TEXTS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e400", "9" * 400, "-" + "9" * 5000, "0.1" + "0" * 5000),
    *(
        '"\\ud83d"',
        '"\\ude00x"',
        "[" * 200 + "]" * 200,
        "[" * 5000,
        '{"a": 1, "a": 2}',
        "01",
        "'a'",
        "undefined",
    ),
)
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        5.7,
        0.5,
        -0.0,
        1e308,
        -1e308,
        5e-324,
        2**31,
        2**32,
        2**53 + 1,
        2**63,
        10**12,
    ),
    *(
        "",
        " ",
        "5",
        "inf",
        "-inf",
        "nan",
        "a",
        "é",
        "😀",
        "\ufeff",
        "\u202e",
        "\x00",
        "\x1b[31m",
        "..",
        "/",
        "a" * 9999,
    ),
    *([], {}, [[]], [None], [1], [1, None], [[5]], ["a"], {"a": 1}, {"": ""}, [{}], [0] * 999),
)


def mutate(content: bytes, rng: random.Random, *, is_json: bool) -> bytes:
    """One to four changes after each other.

    Args:
      content: of a file.
      rng: what they depend on.
      is_json: whether the file, or each of its lines, is JSON.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if is_json and rng.random() < 0.7:
            content = change_json(content, rng)
        else:
            content = rng.choice(BYTES)(content, rng)
    return content


def change_json(content: bytes, rng: random.Random) -> bytes:
    """A change of the file's value, or of one of its lines'; of bytes, if neither is JSON any more."""
    try:
        return _changed(content, rng)
    except (ValueError, RecursionError):
        pass
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    try:
        lines[number] = _changed(lines[number], rng).replace(b"\n", b"")
    except (ValueError, RecursionError):
        return rng.choice(BYTES)(content, rng)
    return b"\n".join(lines)


def _changed(content: bytes, rng: random.Random) -> bytes:
    root = [json.loads(content)]
    places = list(_places(root))
    container, key = rng.choice(places)
    old = container[key]
    raw = rng.choice(_RAW_TEXTS)
    kind = rng.randrange(9)
    if kind <= 1:
        container[key] = rng.choice(_VALUES)
    elif kind == 2:
        container[key] = _RAW
    elif kind == 3:
        container[key] = rng.choice(([old], {"a": old}, str(old), [old] * rng.choice((2, 3, 500))))
    elif kind == 4 and container is not root:
        del container[key]
    elif kind == 5 and isinstance(container, dict):
        text = json.dumps({key: rng.choice(_VALUES)}, ensure_ascii=False)[1:-1]
        container[key + _RAW] = None
        raw = f"{_RAW}, {text}"
    elif kind == 6 and isinstance(container, dict):
        container[rng.choice((key.upper(), key + "s", "", "\x1b[1m", "name", "é", key * 999))] = (
            container.pop(key)
        )
    elif kind == 7 and isinstance(old, str) and old:
        place = rng.randrange(len(old))
        container[key] = old[:place] + rng.choice(("\x00", "\u202e", "😀", "\n", '"', "\ufeff")) + old[place:]
    elif kind == 8 and isinstance(old, int | float):
        container[key] = rng.choice((-old, old + 1, old * 10**9, old // 3, str(old), bool(old)))
    else:
        other, index = rng.choice(places)
        container[key], other[index] = json.loads(json.dumps(other[index])), old
    text = json.dumps(root[0], ensure_ascii=rng.random() < 0.5)
    twice = json.dumps(_RAW)[1:-1]
    text = (
        text.replace(f'{twice}": null', f'": null, {raw.removeprefix(_RAW + ", ")}') if _RAW in raw else text
    )
    for word in (_RAW, twice):
        text = text.replace(f'"{word}"', raw)
    return text.encode(errors="surrogatepass")


def _places(root: Any) -> Any:
    """(container, key) of every value."""
    found, waiting = [], [root]
    while waiting:
        container = waiting.pop()
        for key in container if isinstance(container, dict) else range(len(container)):
            found.append((container, key))
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
    return found


def _span(content: bytes, rng: random.Random, most: int = 64) -> tuple[int, int]:
    begin = rng.randrange(len(content) + 1)
    length = rng.choice((1, 2, 4, 8, most, len(content) // 3))
    return begin, min(len(content), begin + rng.randint(0, max(length, 1)))


def flip(content: bytes, rng: random.Random) -> bytes:
    """Some bits turned over."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if content else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def write_word(content: bytes, rng: random.Random) -> bytes:
    """A word that readers stumble over, in place of something or between."""
    begin, end = _span(content, rng, 8)
    return content[:begin] + rng.choice(WORDS) + content[rng.choice((begin, end)) :]


def write_number(content: bytes, rng: random.Random) -> bytes:
    """A number of 1, 2, 4 or 8 bytes, at the edge of what such a number holds."""
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice((0, 1, 0x7F, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
    begin = rng.randrange(len(content) + 1)
    order = rng.choice(("little", "big"))
    number %= 2 ** (8 * size)
    packed = number.to_bytes(size, "little")
    return content[:begin] + (packed if order == "little" else packed[::-1]) + content[begin + size :]


def noise(content: bytes, rng: random.Random) -> bytes:
    """Random bytes in place of something."""
    begin, end = _span(content, rng)
    return content[:begin] + rng.randbytes(end - begin) + content[end:]


def cut(content: bytes, rng: random.Random) -> bytes:
    """The beginning alone, or the end alone."""
    place = rng.randrange(len(content) + 1)
    return rng.choice((content[:place], content[:place], content[place:]))


def leave_out(content: bytes, rng: random.Random) -> bytes:
    """A part is gone."""
    begin, end = _span(content, rng)
    return content[:begin] + content[end:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    """A part stands there several times."""
    begin, end = _span(content, rng)
    most = max(1, MAX_GROWTH // max(end - begin, 1))
    return content[:end] + content[begin:end] * min(most, rng.choice((1, 2, 10, 1000))) + content[end:]


def swap(content: bytes, rng: random.Random) -> bytes:
    """Two parts change places."""
    a, b, c, d = sorted(rng.randrange(len(content) + 1) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def swap_lines(content: bytes, rng: random.Random) -> bytes:
    """Lines in another order, some gone, some twice."""
    lines = content.split(b"\n")
    return b"\n".join(rng.choices(lines, k=rng.randint(0, len(lines) + 2)))


def write_token(content: bytes, rng: random.Random) -> bytes:
    """Another word for a number, a text or a literal of JSON or of a table."""
    tokens = list(re.finditer(rb'"[^"\n]{0,200}"|-?[0-9][0-9.eE+-]*|true|false|null|[,:\t]', content))
    if not tokens:
        return write_word(content, rng)
    token = rng.choice(tokens)
    return content[: token.start()] + rng.choice(WORDS) + content[token.end() :]


def recode(content: bytes, rng: random.Random) -> bytes:
    """The same text in another encoding, with other ends of line, packed, or after a mark."""
    kind = rng.randrange(8)
    if kind < 3:
        text = content.decode(errors="replace")
        return text.encode(("utf-16", "utf-32", "latin-1")[kind], errors="replace")
    if kind == 3:
        return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\xe2\x80\xa8")))
    if kind == 4:
        return b"\xef\xbb\xbf" + content
    packed = gzip.compress(content, mtime=0)
    return packed if kind == 5 else (flip if kind == 6 else cut)(packed, rng)


def nothing(content: bytes, rng: random.Random) -> bytes:
    """An empty file, or one of white space."""
    return rng.choice((b"", b"\n", b" \n\t\n", b"\xef\xbb\xbf", b"\x00" * 100))


BYTES: tuple[Mutator, ...] = (
    *(flip, write_word, write_number, noise, cut, leave_out, repeat, swap, swap_lines, write_token),
    *(flip, write_word, write_number, noise, cut, leave_out, repeat, swap, write_token, recode, nothing),
)
"""Of bytes; those that more is expected of stand there twice."""
