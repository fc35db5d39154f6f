"""The routes of a server, put together."""

from typing import Any

import sia_jax
from sia_jax.extras import installed_with
from sia_jax.serve.chat import chat_routes
from sia_jax.serve.completions import completion_routes
from sia_jax.serve.errors import add_handlers
from sia_jax.serve.openapi import describe
from sia_jax.serve.page import page_routes
from sia_jax.serve.presets import described
from sia_jax.serve.service import Service
from sia_jax.serve.settings import State
from sia_jax.serve.texts import text_routes

with installed_with("serve"):
    from fastapi import APIRouter, FastAPI
    from starlette.responses import JSONResponse, Response


def create_app(service: Service, *, keyed: bool = False) -> FastAPI:
    """An app of all routes, with errors in OpenAI's shape; what stands before them is for others to add.

    Args:
      service: what the routes share.
      keyed: whether a key is asked for before the routes, which the OpenAPI document tells.
    """
    app = FastAPI(
        title="sia_jax",
        version=sia_jax.__version__,
        description="OpenAI's API over a policy that a value model steers where it is uncertain.",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    add_handlers(app)
    for router in (completion_routes(service), chat_routes(service), text_routes(service), _about(service)):
        app.include_router(router)
    app.router.routes.extend(page_routes())
    describe(app, service, keyed=keyed)
    return app


def _about(service: Service) -> APIRouter:
    """What a server says of itself."""
    router = APIRouter()

    def model(name: str) -> dict[str, Any]:
        return {
            **{"id": name, "object": "model", "created": service.created, "owned_by": "sia_jax"},
            "max_model_len": service.max_length,
            "sia": described(service.preset(name), service.terms),
        }

    @router.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [model(name) for name in service.presets]})

    @router.get("/v1/models/{name:path}")
    async def one(name: str) -> JSONResponse:
        return JSONResponse(model(name))

    @router.get("/health")
    @router.get("/health/", include_in_schema=False)
    async def health() -> JSONResponse:
        status = 200 if service.state == State.READY else 503
        return JSONResponse({"status": service.state.value}, status)

    @router.get("/version")
    async def version() -> JSONResponse:
        return JSONResponse({"version": sia_jax.__version__})

    @router.get("/load")
    async def load() -> JSONResponse:
        now = service.engine.statistics()
        return JSONResponse(
            {"server_load": now.in_rows + now.waiting, "running": now.in_rows, "waiting": now.waiting}
        )

    @router.get("/metrics")
    async def metrics() -> Response:
        content, kind = service.metrics.exposition()
        return Response(content, headers={"content-type": kind})

    return router
