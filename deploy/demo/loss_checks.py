"""Whether anything was lost: facts without their effect, beats acknowledged and not stored, stories without an end.

Rule: the database is asked, not the services. What each consumer listens to is read from NATS, where the services
themselves say it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nats.aio.client import Client

from deploy.demo.operator_client import CALL_SECONDS, OperatorClient
from deploy.demo.simulated_agent import SimulatedAgent
from libs.common.clock import SystemClock
from libs.common.database import Database
from prunella.v1 import ingest_pb2
from prunella.v1.events_pb2 import Event

SETTLE_SECONDS = 30.0
LOOK_SECONDS = 0.5
NATS_SECONDS = 5
CONSUMERS = ("ingest", "decider", "patcher", "ops")
COUNTS = "SELECT fact, count(*) AS number FROM bus.facts GROUP BY fact ORDER BY fact"
WITHOUT_EFFECT = """
SELECT f.fact, f.id FROM bus.facts f WHERE f.fact = ANY(CAST(:facts AS text[]))
AND NOT EXISTS (SELECT 1 FROM bus.inbox i WHERE i.consumer = :consumer AND i.event_id = f.id) LIMIT 100
"""
PAYLOADS = "SELECT payload FROM bus.facts"
UNPUBLISHED = "SELECT fact, id FROM bus.facts WHERE publish_time IS NULL LIMIT 100"
PARKED = "SELECT consumer, fact, reason FROM bus.dead_letters WHERE redrive_time IS NULL LIMIT 100"
UNFINISHED = """
SELECT incident, count(*) FILTER (WHERE fact = 'attempt_created') AS begun,
       count(*) FILTER (WHERE fact = ANY(CAST(:ends AS text[]))) AS ended
FROM bus.facts WHERE incident <> '' GROUP BY incident
HAVING count(*) FILTER (WHERE fact = 'attempt_created') > count(*) FILTER (WHERE fact = ANY(CAST(:ends AS text[])))
"""
# APPLIED is 1; update, config_update and restart are 1, 3 and 4 (agent.proto).
UNPERMITTED = """
SELECT c.id, c.plugin FROM ingest.receipts r JOIN ingest.commands c ON c.id = r.command
WHERE r.outcome = 1 AND c.kind IN (1, 3, 4) AND NOT EXISTS (
    SELECT 1 FROM patcher.permits p WHERE p.attempt = c.attempt AND p.command = CAST(c.id AS text) AND p.granted)
LIMIT 100
"""
ENDS = [
    "attempt_succeeded", "attempt_rolled_back", "attempt_failed", "attempt_refused", "attempt_cancelled",
    "attempt_rollback_failed", "attempt_unconfirmed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class BeatCounts:
    """Beats of the simulated agents, counted on both sides."""

    sent: int
    acknowledged: int
    stored: int


async def subscriptions(nats_url: str) -> dict[str, list[str]]:
    """Consumer → facts it listens to."""
    client = Client()

    async def ignore(_error: Exception) -> None:
        return None

    await client.connect(nats_url, connect_timeout=NATS_SECONDS, max_reconnect_attempts=3, error_cb=ignore)
    try:
        stream = client.jetstream(timeout=NATS_SECONDS)
        found = {}
        for consumer in CONSUMERS:
            config = (await stream.consumer_info("HEAL", consumer)).config
            subjects = config.filter_subjects or [config.filter_subject or ""]
            found[consumer] = [subject.split(".")[1] for subject in subjects if subject]
        return found
    finally:
        await client.close()


async def counts(database: Database) -> dict[str, int]:
    """Fact → how often it was recorded."""
    async with database.reading() as reading:
        return {row.fact: row.number for row in await reading.all(COUNTS)}


async def recorded(database_url: str, where: Callable[[Event], bool]) -> set[str]:
    """The ids of the facts of a kind that were written so far."""
    database = Database(database_url, clock=SystemClock(), pool_size=1, application_name="prunella demo story")
    try:
        async with database.reading() as reading:
            events = [Event.FromString(row.payload) for row in await reading.all(PAYLOADS)]
        return {event.id for event in events if where(event)}
    finally:
        await database.close()


async def losses(database: Database, subscribed: Mapping[str, Sequence[str]]) -> list[str]:
    """Everything that has not had its effect, one line each."""
    lines = []
    async with database.reading() as reading:
        for consumer, facts in subscribed.items():
            rows = await reading.all(WITHOUT_EFFECT, facts=list(facts), consumer=consumer)
            lines += [f"{row.fact} {row.id} had no effect in {consumer}" for row in rows]
        lines += [f"{row.fact} {row.id} was never published" for row in await reading.all(UNPUBLISHED)]
        lines += [f"{row.fact} is parked for {row.consumer}: {row.reason}" for row in await reading.all(PARKED)]
        lines += [f"{row.plugin} applied {row.id} without a permit" for row in await reading.all(UNPERMITTED)]
        rows = await reading.all(UNFINISHED, ends=ENDS)
        lines += [f"incident {row.incident}: {row.begun} attempts, {row.ended} ends" for row in rows]
    return lines


async def settled_losses(database_url: str, nats_url: str) -> tuple[dict[str, int], list[str]]:
    """Counts of facts, and what is still lost after everything had time to arrive."""
    database = Database(database_url, clock=SystemClock(), pool_size=1, application_name="prunella demo checks")
    subscribed = await subscriptions(nats_url)
    try:
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        lost = await losses(database, subscribed)
        while lost and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            lost = await losses(database, subscribed)
        return await counts(database), lost
    finally:
        await database.close()


async def beats(client: OperatorClient, simulated: Sequence[SimulatedAgent]) -> tuple[BeatCounts, list[str]]:
    """Beats of simulated agents that have stopped, and the plugins for which an acknowledged one is not stored."""
    counted, lost = [], []
    for agent in simulated:
        request = ingest_pb2.GetPluginRequest(name=f"plugins/{agent.identity.plugin}")
        stored = (await client.ingest.GetPlugin(request, timeout=CALL_SECONDS)).plugin.beats
        sent, acknowledged = agent.session.beats_sent, agent.session.beats_acknowledged
        counted.append((sent, acknowledged, stored))
        if acknowledged > stored:
            lost.append(f"{agent.identity.label}: {acknowledged} acknowledged, {stored} stored")
    return BeatCounts(*(sum(column) for column in zip((0, 0, 0), *counted, strict=True))), lost
