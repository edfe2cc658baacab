"""The sessions this replica holds, at most one per plugin, and how they learn of commands.

Rule: a hint (in this process or through the bus) has a session look at once; a look into the table every second finds
whatever the hints missed. Both end in the same step of the session, so a command is never written for two reasons.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from libs.common.telemetry import gauge

_connected = gauge("sessions", "Agents connected to this replica")


class Open(Protocol):
    """What the registry needs of a session."""

    plugin: str
    epoch: int

    def look(self) -> None:
        """Look at the plugin's commands now."""

    def close(self, reason: str) -> None:
        """Say goodbye and end."""


class Sessions:
    """Sessions by plugin."""

    def __init__(self) -> None:
        self._open: dict[str, Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, session: Open) -> None:
        """Notes a new session; an older one of the same plugin ends."""
        older = self._open.get(session.plugin)
        if older is not None:
            older.close("a newer session of this plugin has begun")
        self._open[session.plugin] = session
        _connected.set(len(self._open))

    def remove(self, session: Open) -> None:
        """Forgets a session that has ended."""
        if self._open.get(session.plugin) is session:
            del self._open[session.plugin]
        _connected.set(len(self._open))

    def wake(self, plugin: str) -> None:
        """Has the session of a plugin, if it is here, look at its commands."""
        session = self._open.get(plugin)
        if session is not None:
            session.look()

    def end(self, plugin: str, reason: str) -> None:
        """Ends the session of a plugin, if it is here."""
        session = self._open.get(plugin)
        if session is not None:
            session.close(reason)

    def plugins(self) -> list[str]:
        """Whose sessions are here."""
        return list(self._open)

    async def stop(self) -> None:
        """Tells every agent to come back, a few hundred at a time."""
        for number, session in enumerate(list(self._open.values())):
            session.close("this replica stops")
            if number % 200 == 199:
                await asyncio.sleep(0)
