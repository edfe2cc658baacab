"""The sessions this replica holds, at most one per plugin, and how they learn of commands.

Rule: a hint (in this process or through the bus) has a session look at once; a look into the table every second finds
whatever the hints missed. Both end in the same step of the session, so a command is never written for two reasons.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

from libs.common.database import Database, Transaction
from libs.common.errors import Unavailable
from libs.common.telemetry import gauge
from services.ingest.command_lifecycle import Command
from services.ingest.gateway.coalesce import Coalescer
from services.ingest.plugin_state import PluginState
from services.ingest.store import plugin_state, plugins
from services.ingest.store.plugins import AgentHello

log = logging.getLogger(__name__)
# Nobody else notes the end of a session, so it is tried for about as long as a database takes to return.
END_PAUSES = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_connected = gauge("sessions", "Agents connected to this replica")


class Open(Protocol):
    """What the registry needs of a session."""

    plugin: str
    epoch: int

    def check_commands(self) -> None:
        """Look at the plugin's commands now."""

    def offer(self, command: Command) -> None:
        """Write a command that was just issued."""

    def close(self, reason: str) -> None:
        """Say goodbye and end."""


class Sessions:
    """Sessions by plugin."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: dict[str, Open] = {}
        self._begins: Coalescer[AgentHello, PluginState | None] = Coalescer(self._begin, key=lambda hello: hello.plugin)
        self._ends: Coalescer[tuple[str, int], None] = Coalescer(self._end, key=lambda session: session)

    def __len__(self) -> int:
        return len(self._open)

    async def begin(self, hello: AgentHello) -> PluginState | None:
        """The plugin's state under a new epoch; None when it may not have a session. Raises Unavailable."""
        begun = self._begins.submit(hello)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            # It may be noted all the same, and nobody will be here when it ends.
            begun.add_done_callback(lambda done: self._end_abandoned(hello.plugin, done))
            raise

    def _end_abandoned(self, plugin: str, begun: asyncio.Future[PluginState | None]) -> None:
        state = None if begun.cancelled() or begun.exception() else begun.result()
        if state is not None:
            self.note_end(plugin, state.session_epoch)

    def note_end(self, plugin: str, epoch: int) -> None:
        """Has the end of a session written down, whatever becomes of the caller."""
        self._ends.submit((plugin, epoch))

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
            session.check_commands()

    def offer(self, command: Command) -> None:
        """Has a command that was just issued written at once, if the plugin's session is here."""
        session = self._open.get(command.plugin)
        if session is not None:
            session.offer(command)

    def end(self, plugin: str, reason: str) -> None:
        """Ends the session of a plugin, if it is here."""
        session = self._open.get(plugin)
        if session is not None:
            session.close(reason)

    def plugins(self) -> list[str]:
        """Whose sessions are here."""
        return list(self._open)

    async def _begin(self, hellos: Sequence[AgentHello]) -> list[PluginState | None]:
        async def work(tx: Transaction) -> dict[str, PluginState]:
            await plugins.save_capabilities(tx, hellos)
            return await plugin_state.connect(tx, [hello.plugin for hello in hellos])

        begun = await self._database.transaction(work)
        return [begun.get(hello.plugin) for hello in hellos]

    async def _end(self, sessions: Sequence[tuple[str, int]]) -> list[None]:
        for wait in END_PAUSES:
            with contextlib.suppress(Unavailable):
                await self._database.transaction(lambda tx: plugin_state.disconnect(tx, sessions))
                return [None] * len(sessions)
            await asyncio.sleep(wait)
        log.warning("the ends of %d sessions could not be noted", len(sessions))
        return [None] * len(sessions)

    async def stop(self) -> None:
        """Tells every agent to come back, a few hundred at a time."""
        for number, session in enumerate(list(self._open.values())):
            session.close("this replica stops")
            if number % 200 == 199:
                await asyncio.sleep(0)
