"""Who an agent is, from its credential alone.

Rule: the secret's digest is compared in constant time; what the body says about identity is never read. Identities of
active plugins are cached for a minute; that one was barred meanwhile is found by the write, whose row version has moved
on. Whoever asks while others ask shares their look into the table.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence

from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.errors import Denied, Unauthenticated
from libs.common.names import is_uuid
from services.ingest.gateway.coalesce import Coalescer
from services.ingest.plugin_state import PluginState
from services.ingest.store import plugin_state, plugins
from services.ingest.store.plugins import Identity

MOST = 200_000
CACHE_SECONDS = 60.0


def digest(secret: str) -> bytes:
    """What is stored of a secret or token."""
    return hashlib.sha256(secret.encode()).digest()


def derived(key: str, *parts: str) -> str:
    """A secret that only the holder of the shared key can make, the same for the same parts."""
    return hmac.new(bytes.fromhex(key), "\0".join(parts).encode(), hashlib.sha256).hexdigest()


class Identities:
    """Identities by plugin id, bounded. `primed` gets the states that were read along."""

    def __init__(self, database: Database, clock: Clock, primed: Callable[[dict[str, PluginState]], None]) -> None:
        self._database = database
        self._clock = clock
        self._primed = primed
        self._cache: OrderedDict[str, tuple[Identity, float]] = OrderedDict()
        self._loads: Coalescer[str, Identity | None] = Coalescer(self._load, key=str)

    async def check(self, plugin: str, secret: str) -> Identity:
        """The identity a credential proves. Raises Unauthenticated, or Denied when the plugin is barred."""
        found = await self.many([plugin])
        return proven(found.get(plugin), plugin, secret)

    async def many(self, ids: Sequence[str]) -> dict[str, Identity]:
        """Identities of plugins that exist; nothing is proven yet. Raises Unavailable."""
        now = self._clock.monotonic()
        found: dict[str, Identity] = {}
        loading: dict[str, asyncio.Future[Identity | None]] = {}
        for plugin in ids:
            cached = self._cache.get(plugin)
            if cached is not None and now - cached[1] < CACHE_SECONDS:
                found[plugin] = cached[0]
            elif plugin not in loading and is_uuid(plugin):
                loading[plugin] = self._loads.submit(plugin.lower())
        if loading:
            await asyncio.wait(loading.values())
            for plugin, future in loading.items():
                identity = future.result()
                if identity is not None:
                    found[plugin] = identity
        return found

    def forget(self, plugin: str) -> None:
        """Looks a plugin up again next time."""
        self._cache.pop(plugin, None)

    async def _load(self, ids: Sequence[str]) -> list[Identity | None]:
        async with self._database.reading() as tx:
            loaded = await plugins.identities(tx, sorted(ids))
            self._primed(await plugin_state.load(tx, sorted(loaded)))
        now = self._clock.monotonic()
        for plugin, identity in loaded.items():
            # Whoever lets a barred plugin in again may do so at another replica.
            if identity.state == "active":
                self._cache[plugin] = (identity, now)
                self._cache.move_to_end(plugin)
        while len(self._cache) > MOST:
            self._cache.popitem(last=False)
        return [loaded.get(plugin) for plugin in ids]


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
