"""Serves the viewer on a port of loopback until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from trackmill.schemas.errors import InputError

ADDRESS = "127.0.0.1"
_CONNECTIONS = 64
"""More at once are answered with 503: a browser opens six."""
_REQUEST_HEAD_BYTES = 16 << 10


def listen(port: int = 0) -> socket.socket:
    """A socket that listens on loopback.

    Args:
        port: 0 for a free one.

    Raises:
        InputError: the port is taken or may not be used.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
        listening.listen(_CONNECTIONS)
    except OSError as error:
        listening.close()
        why = (error.strerror or str(error)).lower()
        raise InputError(f"--port {port}: {why}; leave it out and a free one is taken") from None
    return listening


def address_of(listening: socket.socket, token: str) -> str:
    """What is typed into a browser."""
    return f"http://{ADDRESS}:{listening.getsockname()[1]}/{token}/"


def serve(app: ASGIApp, listening: socket.socket, started: Callable[[uvicorn.Server], None] | None = None) -> None:
    """Answer requests until Ctrl-C or a signal.

    Args:
        app: see `make_app`.
        listening: see `listen`.
        started: gets the server before it runs; `should_exit = True` ends it from another thread.
    """
    config = uvicorn.Config(
        app,
        access_log=False,  # addresses hold the token
        log_config=None,
        log_level="warning",
        lifespan="off",
        ws="none",
        http="h11",
        proxy_headers=False,  # who says of itself that it comes from elsewhere is not believed
        server_header=False,
        date_header=False,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_REQUEST_HEAD_BYTES,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    if started is not None:
        started(server)
    server.run(sockets=[listening])
