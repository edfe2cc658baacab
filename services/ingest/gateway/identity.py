"""Who an agent is, from its credential alone.

Rule: the secret's digest is compared in constant time; what the body says about identity is never read. Identities are
kept for a minute; that a plugin was barred meanwhile is found by the write, whose row version has moved on. Whoever
asks while others ask shares their look into the table.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence

from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.errors import Denied, Unauthenticated
from services.ingest.gateway.gather import Gather
from services.ingest.store import plugins, pulses
from services.ingest.store.plugins import Identity
from services.ingest.telemetry import Pulse

MOST = 200_000
KEPT_SECONDS = 60.0


def is_uuid(text: str) -> bool:
    """Whether a text can be looked up as an id."""
    if len(text) != 36:
        return False
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def digest(secret: str) -> bytes:
    """What is stored of a secret or token."""
    return hashlib.sha256(secret.encode()).digest()


def derived(key: str, *parts: str) -> str:
    """A secret that only the holder of the shared key can make, the same for the same parts."""
    return hmac.new(bytes.fromhex(key), "\0".join(parts).encode(), hashlib.sha256).hexdigest()


class Identities:
    """Identities by plugin id, bounded. `primed` gets the pulses that were read along."""

    def __init__(self, database: Database, clock: Clock, primed: Callable[[dict[str, Pulse]], None]) -> None:
        self._database = database
        self._clock = clock
        self._primed = primed
        self._kept: OrderedDict[str, tuple[Identity, float]] = OrderedDict()
        self._looks: Gather[str, Identity | None] = Gather(self._load, key=str)

    async def check(self, plugin: str, secret: str) -> Identity:
        """The identity a credential proves. Raises Unauthenticated, or Denied when the plugin is barred."""
        found = await self.many([plugin])
        return proven(found.get(plugin), plugin, secret)

    async def many(self, ids: Sequence[str]) -> dict[str, Identity]:
        """Identities of plugins that exist; nothing is proven yet. Raises Unavailable."""
        now = self._clock.monotonic()
        found: dict[str, Identity] = {}
        asked: dict[str, asyncio.Future[Identity | None]] = {}
        for plugin in ids:
            kept = self._kept.get(plugin)
            if kept is not None and now - kept[1] < KEPT_SECONDS:
                found[plugin] = kept[0]
            elif plugin not in asked and is_uuid(plugin):
                asked[plugin] = self._looks.ask(plugin.lower())
        if asked:
            await asyncio.wait(asked.values())
            for plugin, future in asked.items():
                identity = future.result()
                if identity is not None:
                    found[plugin] = identity
        return found

    def forget(self, plugin: str) -> None:
        """Looks a plugin up again next time."""
        self._kept.pop(plugin, None)

    async def _load(self, asked: Sequence[str]) -> list[Identity | None]:
        async with self._database.reading() as tx:
            loaded = await plugins.identities(tx, sorted(asked))
            self._primed(await pulses.load(tx, sorted(loaded)))
        now = self._clock.monotonic()
        for plugin, identity in loaded.items():
            self._kept[plugin] = (identity, now)
            self._kept.move_to_end(plugin)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return [loaded.get(plugin) for plugin in asked]


def proven(identity: Identity | None, plugin: str, secret: str) -> Identity:
    """The identity if the secret fits it. Raises Unauthenticated or Denied."""
    expected = identity.secret if identity else bytes(32)
    fits = hmac.compare_digest(digest(secret), expected)
    if identity is None or not fits:
        raise Unauthenticated(
            "no plugin has this credential; enrol again with a new token", reason="CREDENTIAL_INVALID", field="plugin"
        )
    if identity.state != "active":
        raise Denied(
            f"the plugin is {identity.state}; it takes a person to change that",
            reason=f"PLUGIN_{identity.state.upper()}",
            plugin=plugin,
        )
    return identity
