"""The demo's fleet: a few real plugins, many light agents, and the sink that all webhooks end at.

Rule: everything here lives in this process or dies with it. Identities, releases in slots and the sink's port are kept
in the plane's state folder, so that a fleet that is started again is the same fleet.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from deploy.demo import releases
from deploy.demo.light import LightAgent
from deploy.demo.lights import MERCHANTS, Lights
from deploy.demo.reach import CALL_SECONDS, Reach
from deploy.demo.shop import Shop
from deploy.demo.sink import Sink
from deploy.demo.webhooks import Webhooks
from deploy.local import ports
from deploy.local.keys import release_keys
from deploy.local.state import State, read_json, write_json
from prunella.v1 import ingest_pb2
from prunella_agent.session import open_channel

TOKEN_SECONDS = 300
GOOD = "1.2.3"
LIGHT = "light"
Say = Callable[[str], None]


class Fleet:
    """The plugins of the demo on one plane."""

    def __init__(self, reach: Reach, state: State, say: Say) -> None:
        self.shops: dict[str, Shop] = {}
        self.sink = Sink()
        self._reach, self._say = reach, say
        self.folder = state.folder / "demo"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.keys = [key.private_bytes_raw() for key in release_keys(state)]
        self._lights = Lights(reach.agents, self.folder, self._token, self.keys)
        self._channel: grpc.aio.Channel | None = None
        self._moved = False
        self._secret = ""
        # Light agents say the same thing twenty times when the plane is away; the story says it once.
        logging.getLogger("prunella_agent").setLevel(logging.ERROR)

    async def start(self) -> None:
        """Publishes the releases and opens the sink; plugins are added afterwards."""
        kept = read_json(self.folder / "world.json")
        before = int(kept.get("sink_port", 0))
        port = await self.sink.start(before if before and ports.is_free(before) else 0)
        self._moved = bool(before) and port != before
        self._secret = str(kept.get("secret") or secrets.token_hex(16))
        write_json(self.folder / "world.json", {"sink_port": port, "secret": self._secret})
        self._channel = open_channel(self._reach.agents)
        await releases.publish(self._reach.patcher, self.keys)

    async def add(self, label: str, version: str = GOOD, *, traffic: bool = True, apart: bool = False) -> Shop:
        """Starts a real plugin; one that was here before goes on with the release it had. Raises TimeoutError.

        `apart`: its configuration holds no secret.
        """
        shop = self._shop(label)
        shop.apart = apart
        token = "" if shop.enrolled else await self._token(label, shop.merchant)
        await shop.start(version, config=self._config(shop), token=token, reinstall=self._moved and shop.enrolled)
        await shop.ready()
        if traffic:
            shop.traffic.start()
        return shop

    async def install(self, label: str, version: str) -> Shop:
        """Puts a release into a plugin by hand, as a careless person would. Raises KeyError, TimeoutError."""
        shop = self.shops[label]
        await shop.stop()
        await shop.start(version, config=self._config(shop), reinstall=True)
        await shop.ready()
        shop.traffic.start()
        return shop

    @property
    def lights(self) -> list[LightAgent]:
        """Every light agent."""
        return self._lights.agents

    @property
    def webhooks(self) -> Webhooks:
        """How the webhooks of light agents fare."""
        return self._lights.webhooks

    async def add_lights(
        self, count: int, package: str = releases.PACKAGE, release: str = GOOD, *, label: str = "", config: str = ""
    ) -> list[LightAgent]:
        """Starts so many light agents of a package; those that were here before come back as themselves."""
        assert self._channel is not None, "start the fleet first"
        name = label or (LIGHT if package == releases.PACKAGE else package)
        return await self._lights.add(self._channel, count, package, release, name, config)

    async def publish(self, package: str, *versions: str, reach: Reach | None = None) -> None:
        """Makes releases of another package known, in the name of whoever `reach` speaks for."""
        await releases.publish((reach or self._reach).patcher, self.keys, versions, package)

    async def configure(self, shop: Shop, version: str) -> str:
        """Makes the configuration a plugin was started with known, signed, as its own; returns its digest."""
        return await releases.configure(self._reach.patcher, self.keys, version, self._config(shop), shop.plugin)

    async def stop(self) -> None:
        """Stops every plugin with a goodbye, then the sink."""
        stops = [*(shop.stop() for shop in self.shops.values()), self._lights.stop()]
        await asyncio.gather(*stops, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
        await self.sink.stop()

    def _shop(self, label: str) -> Shop:
        if label not in self.shops:
            number = sum(ord(letter) for letter in label)
            self.shops[label] = Shop(
                label,
                f"{MERCHANTS[number % len(MERCHANTS)]}-{label}",
                self.folder / label,
                self._reach.agents,
                partial(releases.release, private_keys=self.keys),
                {"cms": ("woocommerce", "shopware", "magento")[number % 3]},
            )
        return self.shops[label]

    def _config(self, shop: Shop) -> dict[str, str]:
        secret = f"{self._secret}-{shop.label}"
        sink = self.sink.merchant(shop.label, secret.encode())
        if shop.apart:
            shop.keep(secret)
            return {"sink": sink}
        return {"sink": sink, "secret": secret}

    async def _token(self, label: str, merchant: str, package: str = releases.PACKAGE) -> str:
        request = ingest_pb2.CreateEnrollmentTokenRequest(
            request_id=str(uuid.uuid4()),
            merchant=merchant,
            package=package,
            label=label,
            lifetime=Duration(seconds=TOKEN_SECONDS),
        )
        answer: Any = await self._reach.ingest.CreateEnrollmentToken(request, timeout=CALL_SECONDS)
        return str(answer.token)
