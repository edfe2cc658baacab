"""Many simulated agents: they join by token like everybody, share one connection, and beat until they are stopped.

Rule: those of the relay are stored between runs and come back as themselves; the packages of single scenarios are there
for one run only.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import grpc.aio

from deploy.demo import releases
from deploy.demo.simulated_agent import Identity, SimulatedAgent, Slot
from deploy.demo.webhook_model import WebhookModel
from deploy.local.state import read_json, write_json
from prunella_agent import configurations
from prunella_agent.enroll import enroll

ENROLL_AT_ONCE = 8
MERCHANTS = ("acme-books", "bella-flowers", "corner-tea", "delta-bikes", "ever-prints", "fjord-knits", "gusto-deli")
SYSTEMS, REGIONS = ("woocommerce", "shopware", "magento"), ("eu", "us")
# (label, merchant, package) → an enrolment token.
Token = Callable[[str, str, str], Awaitable[str]]


class SimulatedAgents:
    """Every simulated agent of one fleet."""

    def __init__(self, plane: str, folder: Path, token: Token, keys: Sequence[bytes]) -> None:
        self.agents: list[SimulatedAgent] = []
        self.webhooks = WebhookModel()
        self._plane, self._folder, self._token, self._keys = plane, folder, token, keys
        self._slots = asyncio.Semaphore(ENROLL_AT_ONCE)

    async def add(
        self, channel: grpc.aio.Channel, count: int, package: str, release: str, label: str, config: str = ""
    ) -> list[SimulatedAgent]:
        """Starts so many that run a release; labels count on from those of the same name. Returns them all."""
        known = self._stored(count) if package == releases.PACKAGE else []
        labels = [f"{label}-{number}" for number in range(len(known) + 1, count + 1)]
        join = partial(self._enroll, channel, package, release, config)
        known += await asyncio.gather(*map(join, labels))
        added = [self._agent(channel, package, identity) for identity in known]
        for agent in added:
            agent.start()
        self.agents += added
        self.save()
        await asyncio.gather(*(agent.wait_acknowledged() for agent in added))
        return added

    async def stop(self) -> None:
        """Stops them with a goodbye."""
        await asyncio.gather(*(agent.stop() for agent in self.agents), return_exceptions=True)
        self.save()

    def save(self) -> None:
        """Writes down who they are."""
        stored = [agent.identity.encode() for agent in self.agents if agent.package == releases.PACKAGE]
        write_json(self._folder / "simulated_agents.json", {"agents": stored})

    def _stored(self, count: int) -> list[Identity]:
        stored = read_json(self._folder / "simulated_agents.json").get("agents", [])
        return [Identity.decode(fields) for fields in stored][:count]

    def _agent(self, channel: grpc.aio.Channel, package: str, identity: Identity) -> SimulatedAgent:
        number = sum(map(ord, identity.label))
        return SimulatedAgent(
            self._plane,
            identity,
            channel,
            package=package,
            failure_rate=partial(self.webhooks.failure_rate, package),
            environment={"cms": SYSTEMS[number % len(SYSTEMS)], "region": REGIONS[number % len(REGIONS)]},
        )

    async def _enroll(self, channel: grpc.aio.Channel, package: str, release: str, config: str, label: str) -> Identity:
        async with self._slots:
            merchant = MERCHANTS[sum(map(ord, label)) % len(MERCHANTS)]
            credential = await enroll(
                channel,
                token=await self._token(label, merchant, package),
                enrollment_key=str(uuid.uuid4()),
                package=package,
                release=release,
                merchant=merchant,
            )
        digest = releases.release(release, self._keys, package).digest
        keys = [key.hex() for key in credential.release_keys]
        slot = Slot(
            release, digest, config=config, config_digest=configurations.digest(config.encode()) if config else ""
        )
        return Identity(label, credential.plugin, credential.secret, keys, slot)
