"""Listening on a port, and ending without breaking off what is under way."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

import uvicorn

from vqcodec.errors import VqcodecError


def listen(
    app: Any, host: str, port: int, on_ready: Callable[[str], None], *, patience_s: int = 30
) -> None:
    """Serve an ASGI application until SIGINT or SIGTERM.

    Args:
        app: the application.
        host: a name or address of this machine.
        port: 0 for any that is free.
        on_ready: called with the address of the server when connections are taken.
        patience_s: for requests under way when it is to end.

    Raises:
        VqcodecError: the port is taken, or the host is another's.
        KeyboardInterrupt: at the end, after a SIGINT.
        SystemExit: at the end, after a SIGTERM, so that what is open is closed.
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
            app, log_level="error", access_log=False, timeout_graceful_shutdown=patience_s
        )
        before = signal.signal(signal.SIGTERM, _leave)
        try:
            uvicorn.Server(config).run([listening])
        finally:
            signal.signal(signal.SIGTERM, before)


def _leave(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
