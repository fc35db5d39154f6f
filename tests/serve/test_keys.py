"""Who may come in: one of several keys, compared whole, and nothing but liveness without."""

import hashlib
import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest

from sia_jax.serve import keys
from sia_jax.serve.asgi import App, Receive, Scope, Send
from sia_jax.serve.keys import Bearer, read_keys
from tests.support.refusals import refused
from tests.support.tiny_app import Answer, ask

KEYS = ("sesame-open-1", "sesame-open-2")
DIGESTS = tuple(hashlib.sha256(key.encode()).digest() for key in KEYS)


async def anything(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def asked(path: str = "/v1/models", method: str = "GET", *values: str, app: App | None = None) -> Answer:
    headers = [("Authorization", value) for value in values]
    found = ask(app or Bearer(anything, DIGESTS), path, method, headers)
    assert found is not None
    return found


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_of_several_keys_lets_in(key: str, scheme: str) -> None:
    assert asked("/v1/models", "GET", f"{scheme} {key}").status == 200


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        ("Bearer sesame-open-3",),
        ("Bearer sesame-open-1x",),
        ("Bearer sesame-open",),
        ("Basic sesame-open-1",),
        ("sesame-open-1",),
        ("Bearer SESAME-OPEN-1",),
        (f"Bearer {DIGESTS[0].hex()}",),
        ("Bearer sesame-open-1, Bearer sesame-open-2",),
        ("Bearer sesame-open-1", "Bearer sesame-open-1"),
        ("Bearer \xff\xfe",),
    ],
)
def test_whatever_is_not_one_of_them_is_refused_in_openais_shape(values: tuple[str, ...]) -> None:
    answer = asked("/v1/models", "GET", *values)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"
    error = answer.error
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "invalid_api_key",
        None,
    )
    assert "sesame" not in answer.body.decode()


PATHS = ("/v1/models", "/v1/models/", "/metrics", "/metrics/", "/version", "/docs", "/tokenize", "/", "")
NOT_QUITE_HEALTH = (
    "//health",
    "/health//",
    "/health/x",
    "/healthz",
    "/HEALTH",
    "/health/../v1/models",
    "/v1/health",
)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "PUT", "TRACE"])
def test_only_liveness_takes_no_key_whatever_the_method(method: str) -> None:
    for path in (*PATHS, *NOT_QUITE_HEALTH):
        assert asked(path, method).status == 401, path
    for path in ("/health", "/health/"):
        assert asked(path, method).status == 200, path


def test_other_paths_are_open_as_far_as_they_are_named() -> None:
    app = Bearer(anything, DIGESTS, ("/health", "/"))
    assert asked("/", app=app).status == 200
    assert asked("/v1/models", app=app).status == 401


def test_without_keys_everybody_comes_in() -> None:
    assert asked(app=Bearer(anything, ())).status == 200


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        seen.append((one, other))
        return one == other

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    for key in (*KEYS, "none of them"):
        seen.clear()
        asked("/v1/models", "GET", f"Bearer {key}")
        assert [other for _, other in seen] == list(DIGESTS)
        assert {len(one) for one, _ in seen} == {32}


def test_a_websocket_without_a_key_is_closed() -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody asks")

    run = Bearer(anything, DIGESTS)({"type": "websocket", "path": "/health", "headers": []}, receive, send)
    with pytest.raises(StopIteration):
        run.send(None)  # type: ignore[attr-defined]
    assert said == [{"type": "websocket.close", "code": 1008}]


def test_keys_of_a_file_and_of_the_environment_count_together(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\n\n  sesame-open-1  \nsesame-open-2\r\nsesame-open-1\n")
    file.chmod(0o600)
    assert read_keys(file, None) == DIGESTS
    assert read_keys(None, " sesame-open-1, ,sesame-open-2") == DIGESTS
    assert read_keys(file, "sesame-open-2,another-key") == (*DIGESTS, hashlib.sha256(b"another-key").digest())
    for nothing in (None, ""):
        assert read_keys(None, nothing) == ()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_warned_of(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("sesame-open-1\n")
    file.chmod(mode)
    with pytest.warns(UserWarning, match=rf"others than its owner .* \(mode {mode:o}\); chmod 600"):
        assert read_keys(file, None) == DIGESTS[:1]


BAD = ("short", "with space-in-it", "ümlaut-key-1", "tab\tin-the-key", "x" * 257, "zero\x00in-the-key")


@pytest.mark.parametrize("key", BAD)
def test_a_key_that_no_client_could_send_is_refused_without_telling_it(key: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# one\n{key}\n")
    file.chmod(0o600)
    with refused(
        ValueError, f"{file}, line 2", "8 to 256 characters", f"one of {len(key)} characters"
    ) as told:
        read_keys(file, None)
    assert told is None
    with pytest.raises(ValueError, match="key 1 of the environment") as caught:
        read_keys(None, key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"\xff\xfe key"])
def test_a_file_without_keys_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    file.chmod(0o600)
    with refused(ValueError, file, "a key a line"):
        read_keys(file, None)
    with refused(FileNotFoundError, "no such file of keys"):
        read_keys(tmp_path / "none", None)


def test_keys_are_not_kept(tmp_path: Path) -> None:
    """Nothing that a Bearer holds has a key in it."""
    file = tmp_path / "keys"
    file.write_text("sesame-open-1\n")
    file.chmod(0o600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard = Bearer(anything, read_keys(file, None))
    held = itertools.chain.from_iterable(x if isinstance(x, tuple) else (x,) for x in vars(guard).values())
    assert not any("sesame" in repr(x) for x in held)
