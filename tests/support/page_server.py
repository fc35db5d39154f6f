"""A server of scripted replies for the page of `sia_jax.serve`: every request asks for one by its prompt."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sia_jax.serve.page import page_files

Token = dict[str, Any]

MODELS = [
    {"id": "tiny", "object": "model", "created": 0, "owned_by": "sia_jax", "sia": {"threshold": "inf"}},
    {
        "id": "tiny-sia",
        "object": "model",
        "created": 0,
        "owned_by": "sia_jax",
        "sia": {"threshold": 0.3999982267615199, "beta": 2.0},
    },
]


@dataclass(frozen=True, kw_only=True)
class Script:
    """How a prompt is answered."""

    base: Sequence[Token] = ()
    steered: Sequence[Token] = ()
    together: int = 3
    """Tokens of a chunk."""
    newline: str = "\n"
    cut: int | None = None
    """Bytes of a write, wherever they end; None: a frame a write."""
    pause: float = 0.0
    """Seconds before each write."""
    trace: bool = True
    error: dict[str, Any] | None = None
    """In mid-stream, in place of the end."""
    base_ends: bool = False
    """Whether the error spares the base reply."""
    done: bool = True
    """Whether the end is marked."""
    status: int = 200
    retry_after: str | None = None


def token(text: str, entropy: float = 0.1, **fields: Any) -> Token:
    """A token of a trace, not steered unless `fields` say so."""
    return {
        "id": sum(text.encode(errors="surrogatepass")) + len(text),
        "text": text,
        "entropy": entropy,
        "junction": False,
        "shifted": False,
        "policy_logprob": -0.05,
        "logprob": -0.05,
        "value": None,
        "contenders": 0,
        "values_read": 0,
        "candidates": [],
    } | fields


def junction(
    text: str, others: Sequence[str], entropy: float = 1.3, shifted: bool = False, own: str | None = None
) -> Token:
    """A steered token: where it is shifted the policy likes the first of `others` best.

    Args:
      own: what the policy alone would have said, where the server tells it.
    """
    said = token(text)
    names = [others[0], text, *others[1:]] if shifted else [text, *others]
    candidates = [
        {
            "id": token(name)["id"],
            "text": name,
            "policy_logprob": -0.5 - place,
            "value": 0.75 if name == text else -0.25 * place,
            "logprob": -0.2 if name == text else -2.0 - place,
        }
        for place, name in enumerate(names)
    ]
    return said | {
        "entropy": entropy,
        "junction": True,
        "shifted": shifted,
        "policy_logprob": -1.5 if shifted else -0.5,
        "logprob": -0.2,
        "value": 0.75,
        "contenders": len(candidates),
        "values_read": len(candidates),
        "candidates": candidates,
        **({} if own is None else {"policy_choice": token(own)["id"]}),
    }


def words(text: str) -> list[Token]:
    """A text as tokens, one a word, of entropies that go up and down."""
    return [
        token(word, round(0.9 * (place % 5) / 4, 3)) for place, word in enumerate(text.split("|")) if word
    ]


def text_of(tokens: Sequence[Token]) -> str:
    return "".join(one["text"] for one in tokens)


BASE = words("Boil| the| egg| for| three| minutes|,| then| take| it| out|.|\n\n|It| is| soft| then|.") * 3
STEERED = (
    [
        *words("Boil| the| egg| for"),
        junction(" eight", [" three", " ten", " some"], 2.35, shifted=True, own=" three"),
        *words(" minutes|,| then"),
        junction(" cool", [" take", " put"], 0.8),
        *words(" it| in| cold| water|."),
        junction(" That", [" It", " Then", " So", "\n"], 1.7, shifted=True),
        *words(" is| safe| for| everybody|.|\n\n"),
    ]
) * 3

HOSTILE_TEXTS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</span></div><h1>",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "user\u202egnp.exe\u2066",
    "zero\u200bwidth\u200d\ufeff\u00ad",
    "\x1b[2J\x00\x07\x7f\x9b",
    "\u2028line\u2029",
    "tags\U000e0041\U000e0042",
    "\\u202e is no escape",
    "",
    "",
    "\N{GRINNING FACE}",
    "שלום עולם",
    "カタカナ",
    "\r\n\ttab",
    "{{title}} ${1}",
    "x" * 300,
)
HOSTILE = [
    junction(text, ["<b>bold</b>", "\u202e"], shifted=bool(place % 2)) if place % 3 == 0 else token(text, 0.5)
    for place, text in enumerate(HOSTILE_TEXTS)
]
BAD_MESSAGE = "temperature must be 0 or more <b>\u202e</b>"

SCRIPTS = {
    "plain": Script(base=BASE, steered=STEERED),
    "hostile": Script(base=HOSTILE, steered=HOSTILE, together=1),
    "split": Script(base=HOSTILE, steered=STEERED, newline="\r\n", cut=7),
    "bytes": Script(base=HOSTILE[:14], steered=HOSTILE[:14], newline="\r", cut=1),
    "slow": Script(base=BASE * 10, steered=STEERED * 10, together=1, pause=0.05),
    "untraced": Script(base=BASE, steered=STEERED, trace=False),
    "breaks": Script(
        base=BASE[:6], steered=STEERED[:6], error={"message": "the engine has died", "type": "server_error"}
    ),
    "half": Script(base=BASE, steered=STEERED, error={"message": "not finite"}, base_ends=True),
    "cut off": Script(base=BASE[:6], steered=STEERED[:6], done=False),
    "busy": Script(status=503, retry_after="7"),
    "bad": Script(status=400),
}


@dataclass
class Heard:
    """What the server was asked."""

    address: str = ""
    key: str | None = None
    """That it asks for."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Of /v1/chat/completions, as they came."""
    paths: list[str] = field(default_factory=list)
    cancelled: int = 0
    """Replies whose reader went away."""


@contextmanager
def page_server(key: str | None = None) -> Iterator[Heard]:
    """The page and its scripted replies on a free port of loopback, until the `with` ends.

    Args:
      key: what a bearer of the API must have; None: nothing.
    """
    heard = Heard(key=key)
    parts = {part.path: part for part in page_files()}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            heard.paths.append(self.path)
            part = parts.get(self.path)
            if part is not None:
                self._send(200, part.body, part.headers)
            elif self.path == "/v1/models" and self._open():
                self._json(200, {"object": "list", "data": MODELS})
            elif self.path == "/heard":
                self._json(200, {"cancelled": heard.cancelled})
            elif self.path != "/v1/models":
                self._json(404, _error("there is no such path", "not_found_error"))

        def do_POST(self) -> None:
            heard.paths.append(self.path)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._open():
                return
            heard.bodies.append(body)
            script = SCRIPTS[body["messages"][-1]["content"]]
            if script.status == 503:
                self._json(503, _error("the queue is full", "server_error"), {"Retry-After": "7"})
            elif script.status != 200:
                refusal = _error(BAD_MESSAGE, "invalid_request_error", "temperature")
                self._json(script.status, refusal)
            else:
                self._stream(script, body)

        def _open(self) -> bool:
            if key is None or self.headers.get("Authorization") == f"Bearer {key}":
                return True
            self._json(401, _error("a key is needed", "authentication_error"), {"WWW-Authenticate": "Bearer"})
            return False

        def _stream(self, script: Script, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.end_headers()
            try:
                for write in _writes(script, body):
                    time.sleep(script.pause)
                    self.wfile.write(write)
            except OSError:
                heard.cancelled += 1

        def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            self._send(
                status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {})
            )

        def _send(self, status: int, body: bytes, headers: Any) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    heard.address = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _error(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


def _writes(script: Script, body: dict[str, Any]) -> Iterator[bytes]:
    frames = list(_frames(script, body))
    if script.cut is None:
        yield from frames
        return
    whole = b"".join(frames)
    for start in range(0, len(whole), script.cut):
        yield whole[start : start + script.cut]


def _frames(script: Script, body: dict[str, Any]) -> Iterator[bytes]:
    tokens = script.base if body["sia"].get("threshold") == "inf" else script.steered
    end = script.newline

    def frame(data: str) -> bytes:
        return f"data: {data}{end}{end}".encode()

    def chunk(delta: dict[str, Any], **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
        return frame(json.dumps({"object": "chat.completion.chunk", "choices": [choice]}, ensure_ascii=False))

    yield f": a comment{end}{end}".encode()
    yield chunk({"role": "assistant", "content": ""})
    for start in range(0, len(tokens), script.together):
        some = tokens[start : start + script.together]
        traced = {"sia": {"trace": some}} if script.trace else {}
        yield chunk({"content": text_of(some)}, **traced)
    if script.error is not None and not (script.base_ends and tokens is script.base):
        yield frame(json.dumps({"error": script.error}))
        return
    if not script.done:
        return
    yield chunk({}, finish_reason="stop")
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": len(tokens),
        "total_tokens": 9 + len(tokens),
        "sia": {
            "steered": sum(one["junction"] for one in tokens),
            "shifted": sum(one["shifted"] for one in tokens),
            "mean_entropy": sum(one["entropy"] for one in tokens) / len(tokens),
        },
    }
    yield frame(json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": usage}))
    yield frame("[DONE]")
