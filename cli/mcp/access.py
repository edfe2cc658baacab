"""How the MCP server reaches the plane, and who reaches the MCP server over HTTP.

Rule: towards the plane it is the caller `mcp`, who reads and proposes and can do nothing else. A client over HTTP shows
a token that proves no more than that.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from mcp.server.mcpserver.exceptions import ToolError

from cli.plane_client import UNREACHABLE_REASONS, PlaneClient, PlaneNotFound, find
from libs.common import access
from libs.common.errors import Problem, Unavailable

CALLER = access.MCP
Answer = TypeVar("Answer")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class PlaneConnection:
    """The plane, looked for when it is first asked and again after it was away."""

    def __init__(self, plane: PlaneClient | None = None) -> None:
        self._plane = plane

    def plane(self) -> PlaneClient:
        """The plane as the caller `mcp`. Raises PlaneNotFound."""
        if self._plane is None:
            self._plane = find(caller=CALLER)
        return self._plane

    async def reset(self) -> None:
        """Looks for the plane again at the next question: it may have come back elsewhere."""
        lost, self._plane = self._plane, None
        if lost is not None:
            await lost.close()

    async def close(self) -> None:
        """Closes the channels."""
        await self.reset()


def tool(method: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    """A method of something with a `connection` as a tool: known errors reach the client as a sentence."""

    @functools.wraps(method)
    async def call(self: Any, *arguments: Any, **named: Any) -> Answer:
        try:
            return await method(self, *arguments, **named)
        except PlaneNotFound as absent:
            raise ToolError(str(absent)) from None
        except Problem as problem:
            if isinstance(problem, Unavailable) and problem.reason in UNREACHABLE_REASONS:
                await self.connection.reset()
            raise ToolError(f"{problem.message} ({problem.reason})") from None

    return call


def token(key: str) -> str:
    """What a client over HTTP shows; made from the plane's key, and good for nothing but what `mcp` may do."""
    return access.service_token(key, CALLER).rpartition(":")[2]


def require_token(token: str, app: App) -> App:
    """An ASGI application that answers 401 without the token."""
    wanted = f"Bearer {token}".encode()

    async def guarded(scope: Message, receive: Receive, send: Send) -> None:
        shown = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] != "http" or hmac.compare_digest(shown, wanted):
            await app(scope, receive, send)
            return
        text = b"show the token: prunella mcp --http PORT --print-config\n"
        headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return guarded
