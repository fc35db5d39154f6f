"""Chat templates: programs that come with a checkpoint, run within limits, and asked what they read.

What is rendered is what transformers' `apply_chat_template` renders, byte for byte. Whatever is wrong with a
template is a ValueError with its line: one that runs for ever, that fills the memory, that is no template.
"""

import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from sia_jax.text import template_worker
from sia_jax.text.tokenizer import Tokenizer

LONGEST_TEMPLATE = 1 << 17
"""Characters; the longest published ones have some twenty thousand."""

_WALL_SECONDS = 60.0  # until a process that gives no answer, and takes no processor time either, is given up
_LEAST, _TIMES = 20_000, 16  # characters that a text may have, and that it may have for each of its input's


class TemplateRefusal(ValueError):
    """The template refuses these messages; others it may take."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: the chat template refuses it: {why}")
        self.why = why
        """What the template says, and on which line."""


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = False,
    chat_template: str | None = None,
    **variables: Any,
) -> str:
    """What `tokenizer.apply_chat_template(messages, tokenize=False, ...)` returns.

    Args:
      tokenizer: a checkpoint's, with a chat template.
      messages: any that the template takes.
      add_generation_prompt: open the assistant's turn at the end.
      chat_template: the name of one of several templates of the checkpoint, or a template; None: its default.
      **variables: of the template; JSON.

    Raises:
      TemplateRefusal: the template refuses these messages.
      ValueError: no template, a broken one, or one that goes beyond the limits.
    """
    seen = {
        "messages": [dict(message) for message in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **tokenizer.special_tokens_map,
        **variables,
    }
    try:
        size = len(json.dumps(seen, ensure_ascii=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the variables of a chat template must be JSON: {error}") from None
    template = template_of(tokenizer, chat_template)
    # And the template's own words around each message, in front of them all, and behind them.
    limit = _LEAST + _TIMES * size + (len(messages) + 2) * len(template)
    answer = _ask(tokenizer, template, {"ask": "text", "variables": seen, "limit": limit})
    text = str(answer["text"])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{_name(tokenizer)}: the chat template writes half a surrogate pair at character {error.start}, "
            "which is no character; take the template of the original checkpoint"
        ) from None
    return text


def names_read(tokenizer: Tokenizer, chat_template: str | None = None) -> frozenset[str]:
    """The variables and functions that a template reads, such as "enable_thinking" and "strftime_now".

    Args:
      tokenizer: a checkpoint's, with a chat template.
      chat_template: as of `render`.

    Raises:
      ValueError: no template, or a broken one.
    """
    answer = _ask(tokenizer, template_of(tokenizer, chat_template), {"ask": "names"})
    return frozenset(answer["names"])


def template_of(tokenizer: Tokenizer, chat_template: str | None = None) -> str:
    """The template's text.

    Args:
      tokenizer: a checkpoint's, with a chat template.
      chat_template: as of `render`.

    Raises:
      ValueError: there is none, none of several is the default one, or it is no text, or a byte order mark
        begins it.
    """
    name, found = _name(tokenizer), tokenizer.chat_template
    if isinstance(found, dict):
        wanted = "default" if chat_template is None else chat_template
        if wanted not in found and (chat_template is None or "{" not in chat_template):
            what = "none of them is called 'default'" if chat_template is None else f"none is {wanted!r}"
            raise ValueError(
                f"{name}: the tokenizer has the chat templates {sorted(map(str, found))}, and {what}; pass "
                "chat_template=NAME (in Python), or call the wanted one 'default' in the checkpoint's "
                "tokenizer_config.json (one in a file of its own: chat_template.jinja)"
            )
        template = found.get(wanted, chat_template)
    else:
        template = found if chat_template is None else chat_template
    if not isinstance(template, str) or not template:
        got = "" if not template else f", expected a text, got {type(template).__name__}"
        raise ValueError(f"{name}: the tokenizer has no chat template{got}")
    if template.startswith("\ufeff"):
        raise ValueError(
            f"{name}: the chat template begins with a byte order mark, which it would write in front of "
            "every text; save its file as UTF-8 without one"
        )
    if len(template) > LONGEST_TEMPLATE:
        raise ValueError(
            f"{name}: the chat template has {len(template):,} characters, at most {LONGEST_TEMPLATE:,} are "
            "taken; take the template of the original checkpoint"
        )
    return template


def _name(tokenizer: Tokenizer) -> str:
    return str(tokenizer.name_or_path) or "the checkpoint"


def _ask(tokenizer: Tokenizer, template: str, request: dict[str, Any]) -> dict[str, Any]:
    answer = _worker(os.getpid()).answer(request | {"template": template})
    kind = answer.get("error")
    if kind is None:
        return answer
    name = _name(tokenizer)
    where = "" if answer["line"] is None else f"line {answer['line']}: "
    why = f"{where}{answer['why']}"
    if kind == "refused":
        raise TemplateRefusal(name, why)
    what = "is no template that can be read" if kind == "broken" else "goes beyond what a template may take"
    raise ValueError(
        f"{name}: the chat template {what} ({why}); take that of the original checkpoint, or prompt the "
        "policy without one (form='raw', --prompt-form raw)"
    )


@cache
def _worker(_: int) -> "_Worker":
    """One for each process, which a fork does not share."""
    return _Worker()


class _Worker:
    """A process of `template_worker`, started when it is first asked, and anew when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What it says; what it could not say any more is of kind "limit"."""
        with self._lock:
            process = self._process or self._start()
            try:
                answer = _exchange(process, json.dumps(request).encode())
            except BaseException:  # of Ctrl-C too: an answer that comes late would be taken for the next one
                self._end()
                raise
            if answer is None:
                code = self._end()
                return {"error": "limit", "line": None, "why": _why(code)}
            found: dict[str, Any] = json.loads(answer)
            return found

    def _start(self) -> "subprocess.Popen[bytes]":
        import jinja2

        folder = str(Path(jinja2.__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(template_worker.__file__), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the program alone
        )
        weakref.finalize(self, _end, self._process, os.getpid())
        return self._process

    def _end(self) -> int | None:
        process, self._process = self._process, None
        return None if process is None else _end(process, os.getpid())


def _end(process: "subprocess.Popen[bytes]", owner: int) -> int | None:
    """End it; its exit status, if it had ended by itself."""
    if owner != os.getpid():
        return None
    if process.stdin is not None and process.stdout is not None:
        process.stdin.close()
        process.stdout.close()
    code = None
    try:
        code = process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return code


def _exchange(process: "subprocess.Popen[bytes]", request: bytes) -> bytes | None:
    """The answer to a request; None: the process has ended, or gives none."""
    assert process.stdin is not None
    assert process.stdout is not None
    deadline = time.monotonic() + _WALL_SECONDS
    try:
        process.stdin.write(struct.pack(">I", len(request)) + request)
        process.stdin.flush()
    except BrokenPipeError:
        return None
    head = _read(process.stdout, 4, deadline)
    return None if head is None else _read(process.stdout, struct.unpack(">I", head)[0], deadline)


def _read(stream: IO[bytes], count: int, deadline: float) -> bytes | None:
    """So many bytes; None if there are not so many before the deadline."""
    found = bytearray()
    while len(found) < count:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            return None
        part = os.read(stream.fileno(), count - len(found))
        if not part:
            return None
        found += part
    return bytes(found)


def _why(code: int | None) -> str:
    if code is None or code < 0:
        return template_worker.too_slow()
    return f"the process that renders it ended with status {code}"
