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
from deploy.demo.light import Identity, LightAgent, Slot
from deploy.demo.reach import CALL_SECONDS, Reach
from deploy.demo.shop import Shop
from deploy.demo.sink import Sink
from deploy.local import ports
from deploy.local.keys import release_keys
from deploy.local.state import State, read_json, write_json
from prunella.v1 import ingest_pb2
from prunella_agent.enroll import enroll
from prunella_agent.session import open_channel

TOKEN_SECONDS = 300
ENROLL_AT_ONCE = 8
GOOD = "1.2.3"
MERCHANTS = ("acme-books", "bella-flowers", "corner-tea", "delta-bikes", "ever-prints", "fjord-knits", "gusto-deli")
Say = Callable[[str], None]


class Fleet:
    """The plugins of the demo on one plane."""

    def __init__(self, reach: Reach, state: State, say: Say) -> None:
        self.shops: dict[str, Shop] = {}
        self.lights: list[LightAgent] = []
        self.sink = Sink()
        self._reach, self._say = reach, say
        self.folder = state.folder / "demo"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keys = [key.private_bytes_raw() for key in release_keys(state)]
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
        await releases.publish(self._reach.patcher, self._keys)

    async def add(self, label: str, version: str = GOOD, *, traffic: bool = True) -> Shop:
        """Starts a real plugin; one that was here before goes on with the release it had. Raises TimeoutError."""
        shop = self._shop(label)
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

    async def add_lights(self, count: int) -> None:
        """Starts so many light agents; those that were here before come back as themselves."""
        assert self._channel is not None, "start the fleet first"
        kept = read_json(self.folder / "lights.json").get("lights", [])
        known = [Identity.decode(fields) for fields in kept][:count]
        slots = asyncio.Semaphore(ENROLL_AT_ONCE)
        labels = [f"light-{number}" for number in range(len(known) + 1, count + 1)]
        known += await asyncio.gather(*(self._enroll_light(label, slots) for label in labels))
        for identity in known:
            agent = LightAgent(self._reach.agents, identity, self._channel, package=releases.PACKAGE)
            agent.start()
            self.lights.append(agent)
        self._keep()

    async def stop(self) -> None:
        """Stops every plugin with a goodbye, then the sink."""
        stops = [*(shop.stop() for shop in self.shops.values()), *(light.stop() for light in self.lights)]
        await asyncio.gather(*stops, return_exceptions=True)
        self._keep()
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
                partial(releases.release, private_keys=self._keys),
                {"cms": ("woocommerce", "shopware", "magento")[number % 3]},
            )
        return self.shops[label]

    def _config(self, shop: Shop) -> dict[str, str]:
        secret = f"{self._secret}-{shop.label}"
        return {"sink": self.sink.merchant(shop.label, secret.encode()), "secret": secret}

    async def _token(self, label: str, merchant: str) -> str:
        request = ingest_pb2.CreateEnrollmentTokenRequest(
            request_id=str(uuid.uuid4()),
            merchant=merchant,
            package=releases.PACKAGE,
            label=label,
            lifetime=Duration(seconds=TOKEN_SECONDS),
        )
        answer: Any = await self._reach.ingest.CreateEnrollmentToken(request, timeout=CALL_SECONDS)
        return str(answer.token)

    async def _enroll_light(self, label: str, slots: asyncio.Semaphore) -> Identity:
        assert self._channel is not None
        async with slots:
            merchant = MERCHANTS[len(label) % len(MERCHANTS)]
            credential = await enroll(
                self._channel,
                token=await self._token(label, merchant),
                enrollment_key=str(uuid.uuid4()),
                package=releases.PACKAGE,
                release=GOOD,
                merchant=merchant,
            )
        digest = releases.release(GOOD, self._keys).digest
        keys = [key.hex() for key in credential.release_keys]
        return Identity(label, credential.plugin, credential.secret, keys, Slot(GOOD, digest))

    def _keep(self) -> None:
        write_json(self.folder / "lights.json", {"lights": [light.identity.encode() for light in self.lights]})
