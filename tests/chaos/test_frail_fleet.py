"""Two rollouts over two hundred frail agents: some are killed, some sleep, a third of their words is lost once.

The seed of the run is printed; PRUNELLA_CHAOS_SEED takes it again.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration

from deploy.local import keys
from deploy.local.plane import Plane
from deploy.local.testing import FakeAgent, until
from libs.common import names, rpc
from libs.common.names import new_id
from prunella.v1 import agent_pb2, ingest_pb2, ingest_pb2_grpc, patcher_pb2, patcher_pb2_grpc
from prunella.v1.events_pb2 import Event
from prunella_agent.credential import Credential
from prunella_agent.releases import describe, sign
from prunella_agent.session import Session, open_channel
from tests.bench import backing
from tests.chaos import invariants
from tests.service.patcher_alone import archive

PLUGINS, FIRST = 200, 30
KILLED, ASLEEP = PLUGINS // 10, 10
LOST, RESENT_SECONDS = 0.3, 0.25
BUDGET = 64
LOOK_SECONDS = 0.3
PACKAGE, OLD, NEW, NEWEST = "till", "1.2.0", "1.2.3", "1.3.0"
ENVIRONMENT = {
    "INGEST_BEAT_SECONDS": "60",
    "INGEST_STORM_LEAST": "1000000",
    "PATCHER_DEAD_MAN_SECONDS": "8",
    "PATCHER_PROBATION_BEATS": "4",
}
# A sweep looks each second; a machine with better things to do may look late.
OVERDUE = """
SELECT id, state, deadline_time FROM patcher.attempts
WHERE end_time IS NULL AND state <> 'unconfirmed' AND
  (deadline_time IS NULL OR deadline_time < now() - interval '8 seconds')
"""
SWITCHING = "SELECT plugin FROM patcher.attempts WHERE state = 'applying'"
LEFT_OPEN = "SELECT plugin, state FROM patcher.attempts WHERE end_time IS NULL"
AWAKE = "SELECT count(*) FROM ingest.plugin_state WHERE connected"
CLOSED = "SELECT payload FROM bus.facts WHERE fact = 'rollout_closed'"
MERCHANTS = "UPDATE ingest.plugins SET merchant = CASE WHEN id = ANY($1::uuid[]) THEN 'first' ELSE 'second' END"
ENDED = frozenset({"succeeded", "halted"})

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(240)]


class Lossy(Session):
    """A session on which a share of the agent's words, and of the plane's acknowledgements, is lost at first."""

    chance: random.Random

    def report(self, result: agent_pb2.CommandResult) -> None:
        """Hands the word over, or loses it and says it again."""
        if self.chance.random() < LOST:
            asyncio.get_running_loop().call_later(RESENT_SECONDS, super().report, result)
        else:
            super().report(result)

    async def _hear(self, message: agent_pb2.ConnectResponse) -> None:
        if message.WhichOneof("message") == "result_ack" and self.chance.random() < LOST:
            return
        await super()._hear(message)


@dataclass
class FrailAgent(FakeAgent):
    """One of them: it may be killed, or put to sleep and woken."""

    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.session = Lossy(
            self.address, self.credential, hello=self._hello, on_command=self._take, channel=self.channel
        )
        self.session.chance = self.chance

    async def die(self) -> None:
        """Ends without a word."""
        for task in self._tasks:
            task.cancel()
        await self.session.abort()


@dataclass
class Frail:
    """A plane of processes with its fleet."""

    plane: Plane
    connection: asyncpg.Connection
    agents: list[FrailAgent]
    patcher: Any
    ingest: Any
    late: set[str] = field(default_factory=set)

    async def create(self, target: str, *merchants: str) -> str:
        """A rollout; returns its name."""
        settings = patcher_pb2.RolloutSettings(waves=["10", "100%"], soak=Duration(), exposure=3, budget=BUDGET)
        request = patcher_pb2.CreateRolloutRequest(
            package=PACKAGE, target=target, settings=settings, merchants=merchants, reason="a test", request_id=new_id()
        )
        return str((await self.patcher.CreateRollout(request, timeout=10)).rollout.name)

    async def rollout(self, name: str, *states: str) -> patcher_pb2.GetRolloutResponse:
        """The rollout, with its members in some states."""
        request = patcher_pb2.GetRolloutRequest(name=name, member_states=states, page_size=500)
        # Whoever polls leaves the machine to the fleet.
        await asyncio.sleep(LOOK_SECONDS)
        return await self.patcher.GetRollout(request, timeout=10)  # type: ignore[no-any-return]

    async def ends(self, name: str) -> patcher_pb2.Rollout:
        """Waits for its end; where the evidence does not suffice, a person lets it go on."""

        async def look() -> patcher_pb2.Rollout | None:
            found = (await self.rollout(name)).rollout
            if found.state == "paused":
                request = patcher_pb2.ResumeRolloutRequest(name=name, reason="they were killed", request_id=new_id())
                await self.patcher.ResumeRollout(request, timeout=10)
            return found if found.state in ENDED else None

        return await until(look, 120, what=f"{name} ends")  # type: ignore[no-any-return]

    async def healthy(self, name: str, number: int) -> None:
        """Waits until so many have the build."""

        async def look() -> bool:
            return (await self.rollout(name)).rollout.figures.healthy >= number

        await until(look, 60, what=f"{number} plugins are healthy")

    async def watch(self) -> None:
        """Looks all the time for attempts that outlive their deadline."""
        connection = await asyncpg.connect(self.plane.database_url)
        try:
            while True:
                self.late |= {f"{row['id']} {row['state']}" for row in await connection.fetch(OVERDUE)}
                await asyncio.sleep(0.5)
        finally:
            await connection.close()


@pytest.fixture
async def frail(tmp_path: Path) -> AsyncIterator[Frail]:
    seed = int(os.environ.get("PRUNELLA_CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PRUNELLA_CHAOS_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(seed)  # noqa: S311 - who is killed, not a secret
    async with backing.plane(ENVIRONMENT, ("ingest", "patcher")) as plane:
        connection = await asyncpg.connect(plane.database_url)
        channels = {
            name: rpc.channel(plane.addresses[name], caller="operator", key=plane.key) for name in plane.watches
        }
        patcher: Any = patcher_pb2_grpc.PatcherServiceStub(channels["patcher"])
        ingest: Any = ingest_pb2_grpc.IngestServiceStub(channels["ingest"])
        await publish(plane, patcher, tmp_path)
        channel = open_channel(plane.addresses["ingest"])
        made = Frail(plane, connection, await gather(plane, connection, channel, chance), patcher, ingest)
        try:
            yield made
        finally:
            await asyncio.gather(*(agent.session.abort() for agent in made.agents))
            await asyncio.gather(channel.close(), *(each.close() for each in channels.values()))
            await connection.close()


async def publish(plane: Plane, patcher: Any, folder: Path) -> None:
    """Two builds, and a policy that leaves the pace to the rollout."""
    private = [key.private_bytes_raw() for key in keys.release_keys(plane.state)]
    for version in (NEW, NEWEST):
        artifact = archive(folder / version, main=f"VERSION = '{version}'\n")
        envelope = sign(describe(artifact, package=PACKAGE, version=version), private)
        release = patcher_pb2.PublishReleaseRequest(request_id=new_id(), envelope=envelope, artifact=artifact)
        await patcher.PublishRelease(release, timeout=10)
    values = patcher_pb2.Policy(max_in_flight=PLUGINS, max_in_flight_percentage=100.0)
    values.health_check_interval.FromMilliseconds(250)
    request = patcher_pb2.UpdatePolicyRequest(policy=values, reason="a test", request_id=new_id())
    request.update_mask.paths.extend(
        [
            "max_in_flight", "max_in_flight_percentage", "health_check_interval", "require_staging",
            "require_multisig_for_high_impact",
        ]
    )  # fmt: skip
    await patcher.UpdatePolicy(request, timeout=10)


async def gather(plane: Plane, connection: Any, channel: Any, chance: random.Random) -> list[FrailAgent]:
    """The fleet, connected and heard; the first of them belong to the merchant `first`."""
    ids = await backing.seed(plane.database_url, PLUGINS, package=PACKAGE)
    await connection.execute(MERCHANTS, ids[:FIRST])
    place = plane.addresses["ingest"]
    agents = [
        FrailAgent(
            Credential(one, backing.secret(one), ()), place, channel, package=PACKAGE, release=OLD, chance=chance
        )
        for one in ids
    ]
    for agent in agents:
        agent.session.start()
    await until(lambda: all(agent.session.connected for agent in agents), 60, what="every agent is connected")
    for agent in agents:
        agent.beat()
    await asyncio.gather(*(agent.acknowledged() for agent in agents))
    return agents


async def test_two_rollouts_end_although_agents_die_sleep_and_lose_their_words(frail: Frail) -> None:
    chance = frail.agents[0].chance
    asleep = chance.sample(frail.agents[:FIRST], ASLEEP)
    await asyncio.gather(*(agent.die() for agent in asleep))
    awake = PLUGINS - ASLEEP

    async def noticed() -> bool:
        return int(await frail.connection.fetchval(AWAKE)) == awake

    await until(noticed, 90, what="ingest knows who is asleep")
    watching = asyncio.create_task(frail.watch())
    try:
        first = await frail.create(NEW, "first")
        await frail.ends(first)
        second = await frail.create(NEWEST)
        await frail.healthy(second, FIRST)
        # Between its permit and its first word an agent has more than a minute by its deadline: nobody is killed there.
        switching = {row["plugin"] for row in await frail.connection.fetch(SWITCHING)}
        mortal = [agent for agent in frail.agents if agent not in asleep and agent.plugin not in switching]
        dead = chance.sample(mortal, KILLED)
        await asyncio.gather(*(agent.die() for agent in dead))
        done = await frail.ends(second)
        print(done.state, done.reason)  # noqa: T201
        for agent in asleep:
            agent.session.start()
        await listed(frail, second, dead, done.state)
        await retired(frail, dead)
    finally:
        watching.cancel()
        await asyncio.wait({watching})
    assert frail.late == set(), "no attempt outlives its deadline"
    await check(frail, asleep)


async def listed(frail: Frail, name: str, dead: list[FrailAgent], state: str) -> None:
    """Every plugin has the right release or a reason; who slept joins, unless the build is doubted."""
    alive = {agent.plugin: agent for agent in frail.agents if agent not in dead}
    members: dict[str, patcher_pb2.RolloutMember] = {}

    async def settled() -> bool:
        members.update({one.plugin: one for one in (await frail.rollout(name, "all")).members})
        closed = [
            Event.FromString(row["payload"]).rollout_closed.rollout for row in await frail.connection.fetch(CLOSED)
        ]
        doubted = state == "halted" or name.removeprefix("rollouts/") in closed
        return all(_right(members[plugin], agent) or doubted for plugin, agent in alive.items())

    await until(settled, 45, what="everybody who lives has the release or a reason")
    print(Counter(member.state for member in members.values()))  # noqa: T201
    assert len(members) == PLUGINS
    for agent in dead:
        member = members[agent.plugin]
        # Being offline is a reason of its own; who had the build before its death keeps it.
        assert member.state in {"healthy", "offline", "waiting"} or member.reason, member


def _right(member: patcher_pb2.RolloutMember, agent: FrailAgent) -> bool:
    if member.state == "healthy":
        return agent.release == NEWEST
    return bool(member.reason) and member.state in {"reverted", "broken", "silent", "rolled_back", "skipped"}


async def retired(frail: Frail, dead: list[FrailAgent]) -> None:
    """Whom nobody will hear of again a person takes out; nothing of them stays open."""
    open_now = await frail.connection.fetch(LEFT_OPEN)
    print([tuple(row) for row in open_now])  # noqa: T201
    assert {row["plugin"] for row in open_now} <= {agent.plugin for agent in dead}
    for row in open_now:
        request = ingest_pb2.RetirePluginRequest(
            name=names.plugin(row["plugin"]), reason="it never came back", request_id=new_id()
        )
        await frail.ingest.RetirePlugin(request, timeout=10)

    async def nothing() -> bool:
        return not await frail.connection.fetch(LEFT_OPEN)

    await until(nothing, 30, what="no attempt is open")


async def check(frail: Frail, asleep: list[FrailAgent]) -> None:
    connection = frail.connection
    assert await invariants.every_apply_ends(connection) == []
    assert await invariants.one_attempt(connection) == []
    assert await invariants.only_approved(connection) == []
    assert not await connection.fetchval("SELECT count(*) FROM patcher.slots")
    assert not await connection.fetchval("SELECT count(*) FROM patcher.rollout_slots")
    rows = await connection.fetch(
        "SELECT to_release, count(*) FROM patcher.attempts WHERE plugin = ANY($1) AND permitted GROUP BY 1",
        [agent.plugin for agent in asleep],
    )
    assert {row["to_release"] for row in rows} <= {NEWEST}, "who slept over two generations gets the newest alone"
