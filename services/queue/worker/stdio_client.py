"""An MCP server as a program of ours: started, spoken with over its pipes, and gone for certain at the end.

Rule: the program has its own process group and dies with the worker, however the worker dies. At the end its input is
closed, then the group gets SIGTERM, then SIGKILL. What it writes is bounded: an answer longer than a frame is refused
as it comes, and of its standard error only the end is kept. (The transport of the SDK keeps whole lines of any length.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator

import anyio
import structlog
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from prunella_agent.plugin_process import die_with_parent_command, signal_group
from services.queue.worker.config import ServerConfig
from services.queue.worker.framing import LONGEST, LineFramer, OversizedLine

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
CHUNK = 64 * 1024
WAITING = 16
TERMINATE_SECONDS = 2.0
POLL_SECONDS = 0.1
TAIL_BYTES = 2048
TOO_LARGE = "ANSWER_TOO_LARGE"

_log = structlog.get_logger(__name__)


class ServerProcess:
    """One run of a server's program. `lost` is set when it can no longer be spoken with."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.lost = asyncio.Event()
        self.errors = b""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def exit_summary(self) -> str:
        """How it ended, and the end of what it wrote to standard error."""
        status = self._process.returncode if self._process else None
        ended = "" if status is None else f"ended with status {status}"
        stderr_tail = self.errors.decode(errors="replace").strip()[-500:]
        return "; ".join(part for part in (ended, stderr_tail) if part)

    @contextlib.asynccontextmanager
    async def transport(self) -> AsyncGenerator[TransportStreams, None]:
        """Starts the program and connects to it. Raises OSError when it cannot be started."""
        process = self._process = await asyncio.create_subprocess_exec(
            *die_with_parent_command(list(self.config.command)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(self.config),
            cwd=self.config.cwd or None,
            start_new_session=True,
        )
        try:
            to_client, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](WAITING)
            to_server, from_client = anyio.create_memory_object_stream[SessionMessage](WAITING)
            async with from_server, to_server, to_client, from_client, anyio.create_task_group() as group:
                group.start_soon(self._read, process, to_client)
                group.start_soon(self._write, process, from_client)
                group.start_soon(self._read_stderr, process)
                group.start_soon(self._watch, process, to_client)
                try:
                    yield from_server, to_server
                finally:
                    with anyio.CancelScope(shield=True):
                        from_server.close()
                        to_server.close()
                        await self._terminate(process)
                    group.cancel_scope.cancel()
        finally:
            # Whatever else was cut short, nothing of the program stays.
            signal_group(process.pid, signal.SIGKILL)

    async def _read(
        self, process: asyncio.subprocess.Process, to_client: anyio.abc.ObjectSendStream[SessionMessage | Exception]
    ) -> None:
        assert process.stdout is not None
        frames = LineFramer()
        try:
            while chunk := await process.stdout.read(CHUNK):
                for line in frames.feed(chunk):
                    message = self._message(line)
                    if message is not None:
                        await to_client.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, _Unanswerable):
            pass  # the session is gone, or must go
        finally:
            self.lost.set()
            await to_client.aclose()

    def _message(self, line: bytes | OversizedLine) -> SessionMessage | Exception | None:
        if isinstance(line, OversizedLine):
            return self._refused(line)
        if not line.strip():
            return None
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except (ValueError, RecursionError) as error:
            _log.warning("a tool server wrote something that is no message", server=self.config.name)
            return error

    def _refused(self, line: OversizedLine) -> SessionMessage | None:
        text = f"{TOO_LARGE}: an answer of {line.size} bytes is more than {LONGEST}"
        _log.warning("a tool server's message was refused", server=self.config.name, error=text)
        if line.unsolicited:
            return None
        if line.request_id is None:
            raise _Unanswerable(text)
        error = ErrorData(code=INTERNAL_ERROR, message=text)
        return SessionMessage(JSONRPCError(jsonrpc="2.0", id=line.request_id, error=error))

    async def _write(
        self, process: asyncio.subprocess.Process, from_client: anyio.abc.ObjectReceiveStream[SessionMessage]
    ) -> None:
        assert process.stdin is not None
        try:
            async for item in from_client:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
        except (OSError, RuntimeError):
            self.lost.set()  # its input is closed; the reader sees the end of its output

    async def _read_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while chunk := await process.stderr.read(CHUNK):
            self.errors = (self.errors + chunk)[-TAIL_BYTES:]

    async def _watch(
        self, process: asyncio.subprocess.Process, to_client: anyio.abc.ObjectSendStream[SessionMessage | Exception]
    ) -> None:
        # Its pipes tell nothing while a program that it started holds them.
        await _exit(process)
        await asyncio.sleep(POLL_SECONDS)
        self.lost.set()
        await to_client.aclose()

    async def _terminate(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL, None):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINATE_SECONDS):
                    await _exit(process)
                return
            if number is not None:
                signal_group(process.pid, number)


class _Unanswerable(Exception):  # noqa: N818 - says what it means
    """A message was refused and nobody can be told, so the connection ends."""


async def _exit(process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:  # noqa: ASYNC110 - its own wait() waits for its pipes too
        await asyncio.sleep(POLL_SECONDS)


def environment(config: ServerConfig) -> dict[str, str]:
    """The program's environment: what every program needs, and what its configuration gives it; nothing of ours."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | {"PYTHONUNBUFFERED": "1"} | dict(config.env)
