"""Who gets in: so many requests at a time, of so many bytes each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Admission:
    """ASGI middleware: refuses POST requests before their body is kept anywhere.

    Of `n_open` requests, which count from their first byte to the last of the answer, `max_open`
    are let in at a time (429 beyond), with bodies of `max_bytes` (413 beyond).
    """

    def __init__(self, app: App, *, max_open: int, max_bytes: int) -> None:
        self.app, self.max_open, self.max_bytes = app, max_open, max_bytes
        self.n_open = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        refusal = None
        if told.isdigit() and int(told) > self.max_bytes:
            refusal = JSONResponse({"error": self._too_large()}, 413)
        elif self.n_open >= self.max_open:
            text = f"{self.n_open} requests are waiting already; try again later"
            refusal = JSONResponse({"error": text}, 429, {"Retry-After": "1"})
        if refusal is not None:
            # Who is still sending would not read the answer.
            await _discard(receive)
            return await refusal(scope, receive, send)
        self.n_open += 1
        try:
            await self.app(scope, self._counting(receive), send)
        finally:
            self.n_open -= 1

    def _counting(self, receive: Receive) -> Receive:
        """Of bodies that do not tell their size beforehand."""
        n_received = 0

        async def counted() -> Message:
            nonlocal n_received
            message = await receive()
            n_received += len(message.get("body", b""))
            if n_received > self.max_bytes:
                if message.get("more_body"):
                    await _discard(receive)
                raise HTTPException(413, self._too_large())
            return message

        return counted

    def _too_large(self) -> str:
        return f"the request is too large: {self.max_bytes} bytes are taken; send a shorter file"


async def _discard(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass
