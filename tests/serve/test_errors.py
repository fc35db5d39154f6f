"""Errors: OpenAI's shape, the right class of the client's, and nothing in them of this machine."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from sia_jax.serve.errors import ApiError, cleaned
from tests.support.served import Served, served

POSTS = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as found:
        yield found


def error_of(answer: Any, status: int) -> dict[str, Any]:
    """The error of an answer, which has the shape of all."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert body["error"]["type"] == ("invalid_request_error" if status < 500 else "server_error")
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("content", "telling"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[1, 2]", "a list of 2"),
        (b'"text"', "a text"),
        (b"null", "null"),
        (b"\xff\xfe{", "UTF-16"),
        (b'{"model": "\xe9"}', "UTF-8"),
        (b'{"model": "a", "model": "b"}', "twice"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"temperature": 1e999}', "finite"),
        (b'{"temperature": -Infinity}', "finite"),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
        (b'{"model": "a"} {"model": "b"}', "more stands there"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_body_that_is_no_object_in_json_is_a_400(
    server: Served, path: str, content: bytes, telling: str
) -> None:
    error = error_of(server.http.post(path, content=content, headers=JSON), 400)
    assert telling in error["message"]


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/json; charset=latin-1", "multipart/form-data"]
)
def test_another_content_type_is_a_400(server: Served, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = server.http.post("/v1/completions", content=b'{"model": "tiny", "prompt": "a"}', headers=headers)
    assert "application/json" in error_of(answer, 400)["message"]


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=UTF-8"])
def test_json_is_taken_however_it_is_spelt(server: Served, kind: str) -> None:
    content = b'{"model": "tiny", "prompt": "a", "seed": 1}'
    assert (
        server.http.post("/v1/completions", content=content, headers={"content-type": kind}).status_code
        == 200
    )


def test_an_unknown_model_is_a_404_that_names_those_that_there_are(server: Served) -> None:
    for path, own in (("/v1/completions", {"prompt": "a"}), ("/tokenize", {"prompt": "a"})):
        error = error_of(server.post(path, {"model": "gpt-4", **own}), 404)
        assert error["param"] == "model"
        assert error["code"] == "model_not_found"
        assert "tiny-sia" in error["message"]
    assert error_of(server.get("/v1/models/gpt-4"), 404)["code"] == "model_not_found"


def test_unknown_paths_and_methods_have_the_same_shape(server: Served) -> None:
    error_of(server.get("/v1/nothing"), 404)
    error_of(server.http.post("/v1/nothing"), 404)
    assert server.http.get("/v1/completions").headers["allow"] == "POST"
    error_of(server.http.get("/v1/completions"), 405)
    error_of(server.http.delete("/v1/models"), 405)


def test_the_official_client_raises_the_class_of_each(server: Served) -> None:
    client = server.client()
    for kind, fields in (
        (openai.BadRequestError, {"model": "tiny", "prompt": "a", "temperature": -1}),
        (openai.NotFoundError, {"model": "none", "prompt": "a"}),
    ):
        with pytest.raises(kind) as caught:
            client.completions.create(**fields)  # type: ignore[call-overload]
        assert isinstance(caught.value, openai.APIStatusError)
        assert caught.value.param in ("temperature", "model")


def test_what_nobody_foresaw_is_a_500_that_tells_nothing() -> None:
    with served() as server:

        def broken(request: Any, choice: int) -> Any:
            raise RuntimeError("/home/secret/models broke at 0x7f00deadbeef")

        server.engine.script = broken
        error = error_of(server.post("/v1/completions", {"model": "tiny", "prompt": "a"}), 500)
        assert "secret" not in str(error)
        assert server.service.admission.requests == 0
        server.engine.script = None
        assert server.post("/v1/completions", {"model": "tiny", "prompt": "a"}).status_code == 200


def test_what_the_engine_says_is_told_without_the_paths_in_it() -> None:
    with served() as server:

        def refusing(request: Any, choice: int) -> Any:
            raise ValueError("temperature must be cold, says /home/secret/models/tokenizer.json")

        server.engine.script = refusing
        error = error_of(server.post("/v1/completions", {"model": "tiny", "prompt": "a"}), 400)
        assert error["param"] == "temperature"
        assert error["message"] == "temperature must be cold, says (path)"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("/tmp/x-0/y: the template refuses it", "(path): the template refuses it"),
        ("in '/srv/my.model/a.json', line 3", "in '(path)', line 3"),
        (r"C:\models\a and ~/models/b", "(path) and (path)"),
        ("<Tensor at 0x7f12ab34cd>", "<Tensor at (address)>"),
        ("file:///etc/passwd", "(path)"),
        ("HuggingFaceTB/SmolLM2 and/or 1/2", "HuggingFaceTB/SmolLM2 and/or 1/2"),
        ("0x41 is a letter", "0x41 is a letter"),
        ("x" * 1000, "x" * 596 + " ..."),
    ],
)
def test_messages_are_told_without_paths_and_addresses(message: str, expected: str) -> None:
    assert cleaned(message) == expected
    assert ApiError(400, message).body()["error"]["message"] == expected
