"""The demo's fleet: a few real plugins, many simulated agents, and the sink that all webhooks end at.

Rule: everything here lives in this process or dies with it. Identities, releases in slots and the sink's port stay in
the plane's state folder, so that a fleet that is started again is the same fleet.
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
from deploy.demo.operator_client import CALL_SECONDS, OperatorClient
from deploy.demo.shop import PLANNED_SECONDS, Shop
from deploy.demo.simulated_agent import SimulatedAgent
from deploy.demo.simulated_agents import MERCHANTS, SimulatedAgents
from deploy.demo.webhook_model import WebhookModel
from deploy.demo.webhook_sink import WebhookSink
from deploy.local import ports
from deploy.local.keys import release_keys
from deploy.local.state import State, read_json, write_json
from prunella.v1 import ingest_pb2
from prunella_agent.session import open_channel

TOKEN_SECONDS = 300
GOOD = "1.2.3"
SIMULATED = "sim"
Say = Callable[[str], None]


class Fleet:
    """The plugins of the demo on one plane."""

    def __init__(self, client: OperatorClient, state: State, say: Say) -> None:
        self.shops: dict[str, Shop] = {}
        self.sink = WebhookSink()
        self._client, self._say = client, say
        self.folder = state.folder / "demo"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.keys = [key.private_bytes_raw() for key in release_keys(state)]
        self._simulated = SimulatedAgents(client.agents, self.folder, self._token, self.keys)
        self._channel: grpc.aio.Channel | None = None
        self._port_changed = False
        self._secret = ""
        # Simulated agents say the same thing twenty times when the plane is away; the story says it once.
        logging.getLogger("prunella_agent").setLevel(logging.ERROR)

    async def start(self) -> None:
        """Publishes the releases and opens the sink; plugins are added afterwards."""
        stored = read_json(self.folder / "fleet.json")
        before = int(stored.get("sink_port", 0))
        port = await self.sink.start(before if before and ports.is_free(before) else 0)
        self._port_changed = bool(before) and port != before
        self._secret = str(stored.get("secret") or secrets.token_hex(16))
        write_json(self.folder / "fleet.json", {"sink_port": port, "secret": self._secret})
        self._channel = open_channel(self._client.agents)
        await releases.publish(self._client.patcher, self.keys)

    async def add(
        self,
        label: str,
        version: str = GOOD,
        *,
        traffic: bool = True,
        separate_secret: bool = False,
        back_within: float = PLANNED_SECONDS,
    ) -> Shop:
        """Starts a real plugin; one that was here before goes on with the release it had. Raises TimeoutError.

        `separate_secret`: its configuration holds no secret. `back_within`: when it says it will be back once stopped.
        """
        shop = self._shop(label)
        shop.separate_secret, shop.back_within = separate_secret, back_within
        token = "" if shop.enrolled else await self._token(label, shop.merchant)
        await shop.start(
            version, config=self._config(shop), token=token, reinstall=self._port_changed and shop.enrolled
        )
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
    def simulated(self) -> list[SimulatedAgent]:
        """Every simulated agent."""
        return self._simulated.agents

    @property
    def webhooks(self) -> WebhookModel:
        """How the webhooks of simulated agents fare."""
        return self._simulated.webhooks

    async def add_simulated(
        self, count: int, package: str = releases.PACKAGE, release: str = GOOD, *, label: str = "", config: str = ""
    ) -> list[SimulatedAgent]:
        """Starts so many simulated agents of a package; those that were here before come back as themselves."""
        assert self._channel is not None, "start the fleet first"
        name = label or (SIMULATED if package == releases.PACKAGE else package)
        return await self._simulated.add(self._channel, count, package, release, name, config)

    async def publish(self, package: str, *versions: str, client: OperatorClient | None = None) -> None:
        """Makes releases of another package known, in the name of whoever `client` speaks for."""
        await releases.publish((client or self._client).patcher, self.keys, versions, package)

    async def configure(self, shop: Shop, version: str) -> str:
        """Makes the configuration a plugin was started with known, signed, as its own; returns its digest."""
        return await releases.configure(self._client.patcher, self.keys, version, self._config(shop), shop.plugin)

    async def stop(self) -> None:
        """Stops every plugin with a goodbye, then the sink."""
        stops = [*(shop.stop() for shop in self.shops.values()), self._simulated.stop()]
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
                self._client.agents,
                partial(releases.release, private_keys=self.keys),
                {"cms": ("woocommerce", "shopware", "magento")[number % 3]},
            )
        return self.shops[label]

    def _config(self, shop: Shop) -> dict[str, str]:
        secret = f"{self._secret}-{shop.label}"
        sink = self.sink.merchant(shop.label, secret.encode())
        if shop.separate_secret:
            shop.write_secret(secret)
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
        answer: Any = await self._client.ingest.CreateEnrollmentToken(request, timeout=CALL_SECONDS)
        return str(answer.token)
