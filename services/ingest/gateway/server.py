"""The gRPC server of ingest: before it stops, it sends every agent elsewhere."""

from __future__ import annotations

from typing import Any

from libs.common import rpc
from services.ingest.gateway.sessions import Sessions


class GatewayServer(rpc.Server):
    """A server whose streams end with a Disconnect instead of a lost connection."""

    def __init__(self, *arguments: Any, sessions: Sessions, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sessions = sessions

    async def drain(self) -> None:
        """Says NOT_SERVING, and sends the agents away."""
        await super().drain()
        await self._sessions.stop()
