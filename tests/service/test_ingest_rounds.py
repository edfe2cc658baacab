"""What decider and patcher tell moves an incident, each fact once, whenever and however often it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message

from deploy.local.testing import Servers, until
from libs.common.bus import Bus, fact
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.telemetry import use_traceparent
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import events_pb2, ingest_pb2
from prunella.v1.events_pb2 import Event
from services.ingest.reactions import REACTIONS
from tests.service.ingest_alone import Agent, Alone

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Siblings:
    """Decider and patcher, as far as ingest hears of them."""

    def __init__(self, alone: Alone) -> None:
        self.alone = alone
        self.databases: dict[str, Database] = {}
        self.buses: list[Bus] = []

    async def tell(self, source: str, message: Message, agent: Agent, incident: str, **values: Any) -> Event:
        """A fact of a sibling, written as it would write it; the bus brings it."""
        event = fact(source, message, reason="because", plugin=agent.plugin, incident=incident, **values)
        if source not in self.databases:
            database = Database(self.alone.plane.backing.url(source), clock=SystemClock(), pool_size=2)
            bus = Bus(self.alone.plane.backing.nats_url, database, source, SystemClock())
            await bus.start()
            self.buses.append(bus)
            self.databases[source] = database

        async def work(tx: Any) -> None:
            with use_traceparent(TRACE):
                tx.record(event)

        await self.databases[source].transaction(work)
        return event

    async def react(self, event: Event) -> None:
        """Brings a fact straight to its reaction, as often as the test wants."""
        consumer = next(part for part in self.alone.plane.services["ingest"].parts if hasattr(part, "reactions"))
        await consumer.handle(event, TRACE)

    async def close(self) -> None:
        for bus in self.buses:
            await bus.stop()
        for database in self.databases.values():
            await database.close()


@pytest.fixture(scope="module")
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


@pytest.fixture(scope="module")
async def siblings(alone: Alone) -> AsyncIterator[Siblings]:
    made = Siblings(alone)
    yield made
    await made.close()


async def broken(alone: Alone) -> tuple[Agent, str]:
    agent = await alone.agent()
    await agent.beats(1, webhook_attempts=20, webhook_failures=12)
    (incident,) = await alone.incidents(agent)
    return agent, incident.name.removeprefix("incidents/")


async def found(alone: Alone, incident: str) -> ingest_pb2.Incident:
    request = ingest_pb2.GetIncidentRequest(name=f"incidents/{incident}")
    return (await alone.ask().GetIncident(request)).incident


async def stands(alone: Alone, incident: str, state: str, number: int = 1) -> ingest_pb2.Incident:
    async def look() -> ingest_pb2.Incident | None:
        now = await found(alone, incident)
        return now if (now.state, now.round) == (state, number) else None

    return await until(look, 8, what=f"{incident} is {state} in round {number}")  # type: ignore[no-any-return]


def created(attempt: str, number: int = 1) -> events_pb2.AttemptCreated:
    return events_pb2.AttemptCreated(attempt=attempt, action=events_pb2.ACTION_PATCH, to_release="1.2.4", round=number)


def rolled_back(attempt: str, number: int = 1) -> events_pb2.AttemptRolledBack:
    return events_pb2.AttemptRolledBack(
        attempt=attempt, action=events_pb2.ACTION_PATCH, to_release="1.2.4", round=number
    )


async def test_what_a_remedy_breaks_while_it_is_tried_is_not_the_incidents(alone: Alone, siblings: Siblings) -> None:
    agent, incident = await broken(alone)
    before = (await stands(alone, incident, "open")).severity
    await siblings.tell("patcher", created("tried"), agent, incident)
    await stands(alone, incident, "in_progress")
    await agent.beats(1, generation=1)
    await agent.beats(3, generation=1, webhook_attempts=40, webhook_failures=40)
    # The first beat after it was taken back still counts what the remedy did.
    await agent.beats(1, generation=0, webhook_attempts=40, webhook_failures=40)
    assert (await found(alone, incident)).severity == before
    await agent.beats(2, generation=0, webhook_attempts=40, webhook_failures=40)
    assert (await found(alone, incident)).severity > before, "what ran before grew worse itself"


async def test_an_attempt_that_did_not_help_starts_the_next_round_and_one_that_did_ends_it(
    alone: Alone, siblings: Siblings
) -> None:
    agent, incident = await broken(alone)
    await siblings.tell("patcher", created("a-1"), agent, incident)
    assert (await stands(alone, incident, "in_progress")).attempt == "a-1"
    await siblings.tell("patcher", rolled_back("a-1"), agent, incident)
    again = await stands(alone, incident, "open", 2)
    assert [(one.release, one.outcome) for one in again.tried] == [("1.2.4", "rolled_back")]
    (told,) = await alone.plane.facts("incident_round_started", plugin=agent.plugin)
    assert [one.release for one in told.incident_round_started.tried] == ["1.2.4"]
    await siblings.tell("patcher", created("a-2", 2), agent, incident)
    await stands(alone, incident, "in_progress", 2)
    await siblings.tell("patcher", events_pb2.AttemptSucceeded(attempt="a-2", round=2), agent, incident)
    assert (await stands(alone, incident, "mitigated", 2)).attempt == "a-2"
    (told,) = await alone.plane.facts("incident_mitigated", plugin=agent.plugin)
    assert told.incident_mitigated.open_duration.ToTimedelta().total_seconds() > 0


async def test_a_healed_plugin_may_fall_ill_again(alone: Alone, siblings: Siblings) -> None:
    agent, incident = await broken(alone)
    await siblings.tell("patcher", events_pb2.AttemptSucceeded(attempt="a-1", round=1), agent, incident)
    await stands(alone, incident, "mitigated")
    await agent.beats(1, webhook_attempts=20)
    assert len(await alone.incidents(agent)) == 1
    await agent.beats(1, webhook_attempts=20, webhook_failures=20)
    (again,) = await alone.incidents(agent)
    assert (again.name, again.state, again.reopened, again.round) == (f"incidents/{incident}", "open", 1, 2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("decider", events_pb2.DecisionMade(action=events_pb2.ACTION_NOTIFY_OPS, round=1, explanation="nobody knows")),
        ("decider", events_pb2.DecisionMade(action=events_pb2.ACTION_NO_ACTION, round=1, explanation="harmless")),
        ("patcher", events_pb2.AttemptRefused(attempt="a-1", gate="CONFIDENCE", round=1)),
        ("patcher", events_pb2.AttemptRollbackFailed(attempt="a-1", round=1)),
        ("patcher", events_pb2.AttemptUnconfirmed(attempt="a-1", round=1)),
    ],
)
async def test_some_ends_are_a_persons_to_decide(
    alone: Alone, siblings: Siblings, source: str, message: Message
) -> None:
    agent, incident = await broken(alone)
    await siblings.tell(source, message, agent, incident)
    assert (await stands(alone, incident, "escalated")).resolution
    assert len(await alone.plane.facts("incident_escalated", plugin=agent.plugin)) == 1


async def test_a_person_who_cancels_an_attempt_has_taken_over(alone: Alone, siblings: Siblings) -> None:
    agent, incident = await broken(alone)
    await siblings.tell("patcher", created("a-1"), agent, incident)
    await stands(alone, incident, "in_progress")
    cancelled = events_pb2.AttemptCancelled(attempt="a-1", round=1)
    await siblings.tell("patcher", cancelled, agent, incident, actor="operators/ada")
    await stands(alone, incident, "escalated")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
async def test_facts_twice_and_out_of_order_end_alike(alone: Alone, siblings: Siblings, order: tuple[int, ...]) -> None:
    agent, incident = await broken(alone)
    told = [
        created("a-1"),
        rolled_back("a-1"),
        events_pb2.AttemptSucceeded(attempt="a-2", round=2),
    ]
    events = [fact("patcher", one, reason="because", plugin=agent.plugin, incident=incident) for one in told]
    for place in (*order, *order):
        await siblings.react(events[place])
    await asyncio.gather(*(siblings.react(event) for event in events))
    assert (await found(alone, incident)).state == "mitigated"
    for name, most in (("incident_mitigated", 1), ("incident_round_started", 1), ("incident_escalated", 0)):
        assert len(await alone.plane.facts(name, plugin=agent.plugin)) <= most


@pytest.mark.parametrize("name", sorted(REACTIONS))
async def test_every_reaction_bears_a_fact_about_nothing_known(alone: Alone, siblings: Siblings, name: str) -> None:
    told = type(getattr(Event(), name))
    values: dict[str, Any] = {name: told(round=1) if "round" in told.DESCRIPTOR.fields_by_name else told()}
    event = Event(id="0197f3a2-0000-7000-8000-000000000000", source="patcher", plugin="gone", incident="gone", **values)
    assert await siblings_handle(alone, event) is None


async def siblings_handle(alone: Alone, event: Event) -> float | None:
    consumer = next(part for part in alone.plane.services["ingest"].parts if hasattr(part, "reactions"))
    return await consumer.handle(event)  # type: ignore[no-any-return]


async def test_people_close_and_escalate(alone: Alone) -> None:
    agent, incident = await broken(alone)
    name = f"incidents/{incident}"
    asked = ingest_pb2.EscalateIncidentRequest(name=name, reason="I look at it")
    for _ in range(2):
        assert (await alone.ask().EscalateIncident(asked)).incident.state == "escalated"
    closed = await alone.ask().CloseIncident(ingest_pb2.CloseIncidentRequest(name=name, reason="fixed by hand"))
    assert (closed.incident.state, closed.incident.resolution) == ("closed", "fixed by hand")
    told = [(one.WhichOneof("fact"), one.actor) for one in await alone.plane.facts(incident=incident)]
    assert told[1:] == [("incident_escalated", "operators/local"), ("incident_closed", "operators/local")]
    await agent.beats(1, webhook_attempts=20, webhook_failures=20)
    assert len(await alone.incidents(agent)) == 2


async def test_telemetry_tells_before_after_and_control_apart(alone: Alone) -> None:
    agent, peer = await alone.agent(), await alone.agent()
    await agent.beats(3, webhook_attempts=10, webhook_failures=6)
    await peer.beats(1, webhook_attempts=10)
    issued = await alone.issue(agent)
    word = pb.CommandResult(command=issued.id, generation=issued.generation, outcome=pb.COMMAND_OUTCOME_APPLIED)
    await agent.send(word)
    await agent.receives("result_ack")
    request = ingest_pb2.GetTelemetryRequest(plugin=agent.plugin, generation=issued.generation)
    request.switch_time.FromDatetime(SystemClock().now())
    await agent.beats(5, webhook_attempts=10, generation=issued.generation, release="1.2.3")
    await peer.beats(2, webhook_attempts=10, webhook_failures=1)
    told = await alone.ask("patcher").GetTelemetry(request)
    assert (told.before.webhook_attempts, told.before.webhook_failures) == (40, 18)
    assert (told.after.beats, told.after.webhook_attempts, told.after.webhook_failures) == (5, 40, 0)
    assert told.control.webhook_failures >= 1
    assert (told.plugin.release, told.plugin.generation) == ("1.2.3", issued.generation)
