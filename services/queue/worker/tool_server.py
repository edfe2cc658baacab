"""One MCP server and its tools, for as long as the worker lives.

Rule: one task owns the connection: it connects, learns the tools, connects again after a loss with a pause that
doubles, and closes. A server that cannot start is said once for each reason and holds up nobody. Every call has a
deadline, every tool its breaker; an error that a tool answers is an answer and does not count against it. A call that
met its deadline makes the server prove that it still listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import structlog
from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED

from libs.common import cancellation
from libs.common.breaker import BreakerRule, BreakerState, Guarded
from libs.common.clock import Clock
from libs.common.errors import Unavailable
from libs.common.telemetry import counter, current_telemetry
from services.queue.worker import http_client
from services.queue.worker.config import ServerConfig, Tool
from services.queue.worker.stdio_client import TOO_LARGE, ServerProcess
from services.queue.worker.tool_result import TaskFailed, ToolResult, parse_result

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
LIST_TOOLS_SECONDS = 10.0
REFRESH_SECONDS = 60.0
MOST_PAGES = 20
STOP_SECONDS = 7.0
RULE = BreakerRule(window=60.0, volume=3, threshold=0.6, open_for=15.0)

_log = structlog.get_logger(__name__)
_calls = counter("worker_tool_calls_total", "Calls of MCP tools, by tool and how they ended", ("tool", "outcome"))


class ToolServer:
    """A server of the configuration; `offered` are those of its marked tools that it has now."""

    def __init__(self, config: ServerConfig, clock: Clock) -> None:
        self.config = config
        self.offered: frozenset[str] = frozenset()
        self.first_attempt = asyncio.Event()
        self.unavailable_reason = "not started"
        self.program: ServerProcess | None = None
        self._client: Client | None = None
        self._clock = clock
        self._check_now = asyncio.Event()
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._missing: frozenset[str] = frozenset()
        self._guards = {name: self._guard(name) for name in config.tools}

    def start(self) -> None:
        """Begins to connect; `tried` is set after the first success or failure."""
        self._task = asyncio.create_task(self._run(), name=f"tools {self.config.name}")

    async def stop(self) -> None:
        """Closes the connection; a program of ours is gone when this returns."""
        self._ended.set()
        self._check_now.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            await cancellation.cancel_and_wait([self._task])

    @property
    def usable(self) -> frozenset[str]:
        """The tools that may be called now: offered, and not behind an open breaker."""
        now = self._clock.monotonic()
        return frozenset(name for name in self.offered if self._guards[name].breaker.retry_after(now) == 0)

    async def call(self, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        """What a tool answers. Raises Failed: TOOL_UNAVAILABLE, TOOL_TIMEOUT, ANSWER_TOO_LARGE or TOOL_FAILED."""
        full = f"{self.config.name}.{tool.name}"
        with current_telemetry().span(f"tool {full}", attributes={"tool": full}) as made:
            try:
                answer = await self._call_tool(tool, arguments)
            except TaskFailed as failed:
                made.set_attribute("error.type", failed.reason)
                _calls.labels(full, failed.reason).inc()
                raise
            _calls.labels(full, "error" if answer.is_error else "ok").inc()
            return answer

    async def _call_tool(self, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        client = self._client
        if client is None or tool.name not in self.offered:
            raise TaskFailed(
                "TOOL_UNAVAILABLE", f"{self.config.name}.{tool.name} cannot be called now: {self.unavailable_reason}"
            )
        began = time.monotonic()

        async def work() -> ToolResult:
            return parse_result(await client.call_tool(tool.name, arguments), time.monotonic() - began)

        try:
            return await self._guards[tool.name].call(work, timeout=tool.deadline_seconds)
        except Unavailable as problem:
            raise TaskFailed("TOOL_UNAVAILABLE", problem.message) from problem
        except TimeoutError:
            self._check_now.set()
            raise TaskFailed("TOOL_TIMEOUT", f"{tool.name} gave no answer within {tool.deadline_seconds:g} s") from None
        except MCPError as error:
            if error.code == CONNECTION_CLOSED and self._client is client:
                self._client, self.offered, self.unavailable_reason = None, frozenset(), "the connection was lost"
            self._check_now.set()
            reason = TOO_LARGE if TOO_LARGE in str(error) else "TOOL_FAILED"
            raise TaskFailed(reason, str(error)) from error
        except Exception as error:
            self._check_now.set()
            raise TaskFailed("TOOL_FAILED", f"{type(error).__name__}: {error}") from error

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                await self._serve_until_lost()
                reason = "stopped"
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever it is, the next try may work
                reason = self._reason(error)
            self._client, self.offered = None, frozenset()
            if self._ended.is_set():
                return
            if reason != self.unavailable_reason:
                _log.warning("a tool server cannot be used", server=self.config.name, error=reason)
            self.unavailable_reason = reason
            self.first_attempt.set()
            pause = FIRST_PAUSE if time.monotonic() - began > LONGEST_PAUSE else min(pause * 2, LONGEST_PAUSE)
            self._check_now.clear()
            await self._either(pause, self._check_now, self._ended)

    async def _serve_until_lost(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            lost = asyncio.Event()
            if self.config.transport == "stdio":
                self.program = ServerProcess(self.config)
                lost, transport = self.program.lost, self.program.transport()
            else:
                transport = http_client.transport(self.config)
            async with asyncio.timeout(self.config.start_seconds):
                client = await stack.enter_async_context(Client(transport, cache=None))
            while not self._ended.is_set():
                self._check_now.clear()
                await self._list_tools(client)
                await self._either(REFRESH_SECONDS, self._check_now, lost)
                if lost.is_set() and not self._ended.is_set():
                    raise ConnectionError("the program ended")

    async def _list_tools(self, client: Client) -> None:
        """Asks which tools there are; proves at the same time that the server listens."""
        there: set[str] = set()
        cursor: str | None = None
        async with asyncio.timeout(min(LIST_TOOLS_SECONDS, self.config.start_seconds)):
            for _ in range(MOST_PAGES):
                page = await client.list_tools(cursor=cursor)
                there.update(tool.name for tool in page.tools if tool.name in self.config.tools)
                cursor = page.next_cursor
                if not cursor:
                    break
        missing = frozenset(self.config.tools) - there
        if missing != self._missing:
            self._missing = missing
            if missing:
                _log.warning("a tool server lacks tools", server=self.config.name, tools=sorted(missing))
        if self._client is not client:
            _log.info("a tool server is ready", server=self.config.name, tools=len(there))
        self._client, self.offered, self.unavailable_reason = client, frozenset(there), ""
        self.first_attempt.set()

    async def _either(self, seconds: float, *events: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _reason(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, TimeoutError):
            text = f"no answer within {self.config.start_seconds:g} s"
        else:
            text = str(error) or type(error).__name__
        exit_summary = self.program.exit_summary if self.program else ""
        return "; ".join(part for part in (text[:300], exit_summary) if part)

    def _guard(self, name: str) -> Guarded:
        def on_change(full: str, state: BreakerState) -> None:
            _log.warning("the breaker of a tool changed", tool=full, state=state.value)

        return Guarded(f"{self.config.name}.{name}", self._clock, RULE, on_change=on_change, kind="tool")
