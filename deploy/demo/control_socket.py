"""How the command line reaches the demo that runs in another process: a socket in the plane's state folder.

Rule: one JSON line asks, one answers; only the owner of the state folder can ask. There is one thing to ask for: put a
release into a plugin by hand.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from deploy.demo import releases
from deploy.demo.fleet import Fleet
from deploy.local.installation import START_DEMO
from deploy.local.state import State

BROKEN = "1.2.0"
MAX_SOCKET_PATH = 100
ASK_SECONDS = 60.0
LINE_SECONDS = 5.0


class DemoNotRunning(Exception):  # noqa: N818 - says what it means
    """No demo runs on this plane; the text says what to type."""


def socket_path(state: State) -> Path:
    """Where the socket is; outside the state folder when its path is too long for one."""
    inside = state.folder / "demo.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET_PATH:
        return inside
    return Path(tempfile.gettempdir()) / f"prunella-demo-{hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]}.sock"


class ControlServer:
    """Answers what the command line asks of a running demo."""

    def __init__(self, fleet: Fleet, state: State) -> None:
        self._fleet, self._path = fleet, socket_path(state)
        self._server: asyncio.Server | None = None
        self._busy: set[str] = set()

    async def start(self) -> None:
        """Listens."""
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._handle, self._path)
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stops listening and removes the socket."""
        if self._server:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(LINE_SECONDS):
                request = json.loads(await reader.readline())
            answer = await self._answer(str(request["break"]), str(request.get("release") or BROKEN))
        except (KeyError, TypeError, ValueError, TimeoutError, OSError) as error:
            answer = {"ok": False, "text": str(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _answer(self, label: str, release: str) -> dict[str, Any]:
        if label not in self._fleet.shops:
            return {"ok": False, "text": f"the demo has no plugin {label}; it has {', '.join(self._fleet.shops)}"}
        if release not in releases.VERSIONS:
            return {"ok": False, "text": f"there is no release {release}; there are {', '.join(releases.VERSIONS)}"}
        if label in self._busy:
            return {"ok": False, "text": f"{label} is being broken already"}
        self._busy.add(label)
        try:
            await self._fleet.install(label, release)
        finally:
            self._busy.discard(label)
        return {"ok": True, "text": f"{label} runs release {release} now"}


async def ask_to_break(state: State, label: str, release: str = BROKEN) -> str:
    """Puts a broken release into a plugin of the running demo; returns what was done.

    Raises DemoNotRunning when no demo runs on this state folder, ValueError when it says no.
    """
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket_path(state))
            writer.write(json.dumps({"break": label, "release": release}).encode() + b"\n")
            answer = json.loads(await reader.readline() or b"{}")
            writer.close()
    except (OSError, TimeoutError) as error:
        raise DemoNotRunning(f"no demo runs on this plane; start one with: {START_DEMO}") from error
    if not answer.get("ok"):
        raise ValueError(str(answer.get("text", "the demo ended")))
    return str(answer["text"])
