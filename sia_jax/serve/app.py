"""The routes of a server, put together."""

from sia_jax.serve.asgi import App, Receive, Scope, Send
from sia_jax.serve.service import Service


def create_app(service: Service) -> App:
    """An app of all routes.

    Args:
      service: what the routes share.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app
