"""All MCP servers of a worker, and which tools it may promise the queue.

Rule: only a tool that is there now, marked in the configuration and not behind an open breaker is promised.
"""

from __future__ import annotations

import asyncio
from typing import Any

from libs.common.clock import Clock
from services.queue.worker.config import Config, Tool
from services.queue.worker.tool_result import TaskFailed, ToolResult
from services.queue.worker.tool_server import ToolServer


class ToolServers:
    """The servers of a configuration; a part of the worker's process."""

    name = "tool servers"

    def __init__(self, config: Config, clock: Clock) -> None:
        self.servers = {server.name: ToolServer(server, clock) for server in config.servers}
        self._config = config

    async def start(self) -> None:
        """Connects to every server, side by side; returns when each was tried once. None of them can fail this."""
        for server in self.servers.values():
            server.start()
        await asyncio.gather(*(server.first_attempt.wait() for server in self.servers.values()))

    async def stop(self) -> None:
        """Closes every connection and ends every program."""
        await asyncio.gather(*(server.stop() for server in self.servers.values()))

    def tools(self) -> list[str]:
        """The tools (`server.tool`) to promise now."""
        return sorted(f"{name}.{tool}" for name, server in self.servers.items() for tool in server.usable)

    def tool(self, full: str) -> Tool:
        """How a tool is marked. Raises Failed (TOOL_UNKNOWN)."""
        tool = self._config.tool(full)
        if tool is None:
            raise TaskFailed(
                "TOOL_UNKNOWN", f"no server of this worker has a tool {full[:100]!r} that is marked for use"
            )
        return tool

    async def call(self, full: str, arguments: dict[str, Any]) -> ToolResult:
        """What a tool answers. Raises Failed."""
        tool = self.tool(full)
        return await self.servers[full.partition(".")[0]].call(tool, arguments)
