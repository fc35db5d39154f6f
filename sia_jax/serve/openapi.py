"""The OpenAPI document: what FastAPI makes of the routes, with bodies, answers and limits as they are."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from sia_jax.extras import installed_with
from sia_jax.serve import answers
from sia_jax.serve.bodies import REFERENCE
from sia_jax.serve.protocol import Body, ChatBody, CompletionBody, DetokenizeBody, TokenizeBody
from sia_jax.serve.service import Service

with installed_with("serve"):
    from fastapi import FastAPI
    from pydantic import BaseModel
    from pydantic.json_schema import models_json_schema

BODIES: tuple[type[Body], ...] = (CompletionBody, ChatBody, TokenizeBody, DetokenizeBody)
_OF_BODIES = (400, 404, 408, 413)
"""What is wrong with a body, or with its coming."""
_GENERATING = (*_OF_BODIES, 500, 503)
_TEXT = {"schema": {"type": "string"}}
_BEARER = "bearer"
_DIGITS = "^[0-9]{1,10}$"
"""An id as a key."""


@dataclass(frozen=True)
class Told:
    """What a route answers."""

    success: type[BaseModel] | None
    """None: a text."""
    errors: tuple[int, ...] = ()
    chunk: type[BaseModel] | None = None
    """Of its streams."""
    other: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    """Answers of other statuses that are no errors in shape."""


ROUTES: Mapping[tuple[str, str], Told] = {
    ("post", "/v1/completions"): Told(answers.CompletionAnswer, _GENERATING, answers.CompletionChunk),
    ("post", "/v1/chat/completions"): Told(answers.ChatAnswer, _GENERATING, answers.ChatChunk),
    ("post", "/tokenize"): Told(answers.TokenizeAnswer, (*_OF_BODIES, 500)),
    ("post", "/detokenize"): Told(answers.DetokenizeAnswer, (*_OF_BODIES, 500)),
    ("get", "/v1/models"): Told(answers.ModelsAnswer),
    ("get", "/v1/models/{name}"): Told(answers.ModelAnswer, (404,)),
    ("get", "/health"): Told(answers.HealthAnswer, other={503: answers.HealthAnswer}),
    ("get", "/version"): Told(answers.VersionAnswer),
    ("get", "/load"): Told(answers.LoadAnswer),
    ("get", "/metrics"): Told(None),
}
OPEN = frozenset({"/health"})
"""What takes no key; see `sia_jax.serve.keys`."""


def describe(app: FastAPI, service: Service, *, keyed: bool) -> None:
    """Make the OpenAPI document of an app tell what its routes take and answer.

    Args:
      app: all routes are there.
      service: whose names of models and limits are told.
      keyed: whether its requests need a key.
    """
    make = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    told = ROUTES[method, path]
                    locked = keyed and path not in OPEN
                    operation["responses"] = _responses(told, locked)
                    if locked:
                        operation["security"] = [{_BEARER: []}]
            document["components"] = {"schemas": _schemas(service)}
            if keyed:
                document["components"]["securitySchemes"] = {_BEARER: {"type": "http", "scheme": "bearer"}}
        return app.openapi_schema or {}

    app.openapi = whole  # type: ignore[method-assign]


def _responses(told: Told, locked: bool) -> dict[str, Any]:
    success = {"text/plain": _TEXT} if told.success is None else _json(told.success)
    if told.chunk is not None:
        success["text/event-stream"] = {"schema": _event(told.chunk)}
    found = {200: {"description": "OK", "content": success}}
    for status, kind in told.other.items():
        found[status] = {"description": HTTPStatus(status).phrase, "content": _json(kind)}
    for status in (*told.errors, *((401,) if locked else ())):
        found[status] = {
            "description": HTTPStatus(status).phrase,
            "content": _json(answers.ErrorAnswer),
        }
    return {str(status): found[status] for status in sorted(found)}


def _event(chunk: type[BaseModel]) -> dict[str, Any]:
    """Of each event of a stream: a chunk, an error that ends it, or the word that nothing follows."""
    data = {"anyOf": [_reference(chunk), _reference(answers.ErrorAnswer)]}
    whole = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    event = {"data": {"anyOf": [{"const": "[DONE]"}, whole]}}
    return {"type": "object", "required": ["data"], "properties": event}


def _json(kind: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(kind)}}


def _reference(kind: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(model=kind.__name__)}


def _schemas(service: Service) -> dict[str, Any]:
    kinds: list[type[BaseModel]] = [*BODIES, answers.ErrorAnswer]
    for one in ROUTES.values():
        kinds += [kind for kind in (one.success, one.chunk, *one.other.values()) if kind is not None]
    _, made = models_json_schema(
        [(kind, "validation") for kind in dict.fromkeys(kinds)], ref_template=REFERENCE
    )
    schemas: dict[str, Any] = deepcopy(made["$defs"])
    for kind in BODIES:
        _limit(schemas[kind.__name__]["properties"], service)
    return schemas


def _limit(fields: dict[str, Any], service: Service) -> None:
    """Put what this server allows into the fields of a body."""
    settings = service.settings
    length = service.max_length - 1
    new = length if settings.max_new_tokens is None else min(length, settings.max_new_tokens)
    top, ids = service.max_top_logprobs, service.engine.policy.config.vocab_size - 1
    most = {
        **{"n": settings.max_n, "max_tokens": new, "max_completion_tokens": new, "min_tokens": new},
        **{"logprobs": top, "top_logprobs": top, "prompt": ids, "tokens": ids},
    }
    for name, schema in fields.items():
        for part in _parts(schema):
            kind = part.get("type")
            if name == "model" and kind == "string":
                part["enum"] = list(service.presets)
            if name == "logit_bias" and kind == "object":
                part |= {"propertyNames": {"pattern": _DIGITS}, "maxProperties": service.terms.max_logit_bias}
            if name in most and kind == "integer":
                part.pop("exclusiveMaximum", None)
                part["maximum"] = most[name]


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema, and those of its alternatives and items."""
    yield schema
    for part in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])):
        yield from _parts(part)
