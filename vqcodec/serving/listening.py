"""Listening on a port, and ending without breaking off what is under way."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from vqcodec.errors import VqcodecError

PATIENCE_S = 30
"""For requests under way when the server is to end."""


def listen(app: Any, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve an ASGI application until SIGINT or SIGTERM.

    Args:
        app: the application.
        host: a name or address of this machine.
        port: 0 for any that is free.
        on_ready: called with the address of the server when connections are taken.

    Raises:
        VqcodecError: the port is taken, or the host is another's.
        KeyboardInterrupt: at the end, after a SIGINT.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise VqcodecError(
            f"{host} port {port}: {error.strerror}; choose another with --host or --port"
        ) from None
    with listening:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        on_ready(f"http://{shown}:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            app, log_level="error", access_log=False, timeout_graceful_shutdown=PATIENCE_S
        )
        uvicorn.Server(config).run([listening])
