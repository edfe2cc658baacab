"""Errors of plugins through ingest: told to the queue before they are acknowledged, and never in the way of a beat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.local.testing import Servers, until
from libs.common.errors import Invalid
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import queue_pb2
from tests.service.error_queue import ToldQueue
from tests.service.ingest_alone import Agent, Alone


@pytest.fixture
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


@pytest.fixture
async def queue(alone: Alone) -> AsyncIterator[ToldQueue]:
    made = await ToldQueue().start(alone.plane)
    yield made
    await made.stop()


async def tell(agent: Agent, sequence: int, *reports: pb.ErrorReport) -> None:
    await agent.call.write(pb.ConnectRequest(errors=pb.ErrorReports(sequence=sequence, reports=reports)))


def error(number: int = 1, **fields: Any) -> pb.ErrorReport:
    given: dict[str, Any] = {"id": f"e-{number}", "type": "T", "message": "no cart", "occurrences": 1}
    return pb.ErrorReport(**(given | fields))


async def acknowledged(agent: Agent, sequence: int) -> pb.ErrorsAck:
    found: pb.ErrorsAck = await agent.receives("errors_ack", lambda ack: ack.sequence == sequence)
    return found


async def test_the_queue_hears_whose_error_it_is_from_the_credential(alone: Alone, queue: ToldQueue) -> None:
    agent = await alone.agent("shop-7")
    await agent.beats(release="1.2.1")
    await tell(agent, 1, error(occurrences=42))
    assert not (await acknowledged(agent, 1)).rejections
    (told,) = queue.errors
    assert (told.plugin, told.merchant, told.package, told.label) == (agent.plugin, "acme", "relay", "shop-7")
    assert (told.release, told.error.occurrences) == ("1.2.1", 42)
    assert (queue.asked[0].source, queue.callers) == ("agent", {"ingest"})
    assert queue.asked[0].request_id


async def test_a_message_that_comes_twice_is_the_same_request(alone: Alone, queue: ToldQueue) -> None:
    agent = await alone.agent()
    await tell(agent, 1, error())
    await acknowledged(agent, 1)
    await agent.leave()
    await agent.connect()
    await tell(agent, 1, error())
    await acknowledged(agent, 1)
    assert len(queue.asked) == 2 and queue.asked[0].request_id == queue.asked[1].request_id


async def test_without_an_answer_there_is_no_acknowledgement_and_the_session_goes_on(
    alone: Alone, queue: ToldQueue
) -> None:
    agent = await alone.agent()
    await queue.stop()
    await tell(agent, 1, error())
    await until(lambda: alone.ctx.error_forwarder.unavailable, 20.0, what="the queue is found away")
    await agent.beats(3)
    assert not any(message.WhichOneof("message") == "errors_ack" for message in agent.received)
    await queue.start(alone.plane)
    sequence = 1

    async def told_again() -> bool:
        nonlocal sequence
        sequence += 1
        await tell(agent, sequence, error(occurrences=5))
        return queue.counted == {(agent.plugin, "e-1"): 5}

    await until(told_again, 30.0, what="the queue hears the latest figure")
    await agent.receives("errors_ack", lambda ack: ack.sequence > 1)


async def test_what_the_queue_refuses_is_rejected_and_the_rest_is_not(alone: Alone, queue: ToldQueue) -> None:
    refusal = queue_pb2.ReportOutcome(refusal="MESSAGE_MISSING", field="message", message="a report needs a message")
    queue.answers = lambda told: None if told.error.message else refusal
    agent = await alone.agent()
    await tell(agent, 1, error(1, message=""), error(2), error(3, id=""), error(4))
    rejections = (await acknowledged(agent, 1)).rejections
    assert sorted((one.index, one.reason) for one in rejections) == [(0, "MESSAGE_MISSING"), (2, "ID_MISSING")]
    assert {key[1] for key in queue.counted} == {"e-2", "e-4"}


async def test_a_request_the_queue_cannot_take_does_not_harm_other_plugins(alone: Alone, queue: ToldQueue) -> None:
    poison = Invalid("no", reason="POISON", field="errors")
    queue.answers = lambda told: poison if told.error.type == "poison" else None
    agents = [await alone.agent() for _ in range(4)]
    for number, agent in enumerate(agents):
        await tell(agent, 1, error(number, type="poison" if number == 2 else "T"))
    acks = [await acknowledged(agent, 1) for agent in agents]
    assert [[one.reason for one in ack.rejections] for ack in acks] == [[], [], ["POISON"], []]


async def test_many_reports_are_bounded_and_long_texts_are_cut(alone: Alone, queue: ToldQueue) -> None:
    agent = await alone.agent()
    await tell(agent, 1, *(error(number) for number in range(103)))
    ack = await acknowledged(agent, 1)
    assert sorted((one.index, one.reason) for one in ack.rejections) == [(n, "TOO_MANY") for n in (100, 101, 102)]
    await tell(agent, 2, error(message="é" * 50_000, stack="first\n" + "x" * 800_000 + "\nlast"))
    await acknowledged(agent, 2)
    told = queue.errors[-1].error
    assert len(told.message.encode()) <= 8192 and len(told.stack.encode()) <= 65536
    assert told.stack.startswith("first") and told.stack.endswith("last")


async def test_a_message_of_a_hundred_long_stacks_is_told_in_parts(alone: Alone, queue: ToldQueue) -> None:
    agent = await alone.agent()
    await tell(agent, 1, *(error(number, stack="x" * 9000) for number in range(100)))
    assert not (await acknowledged(agent, 1)).rejections
    assert len(queue.asked) == 2 and len(queue.counted) == 100


async def test_beats_do_not_wait_while_the_queue_hangs(alone: Alone, queue: ToldQueue) -> None:
    loop = asyncio.get_running_loop()
    agents = [await alone.agent() for _ in range(3)]

    async def slowest() -> float:
        longest = 0.0
        for _ in range(15):
            for agent in agents:
                began = loop.time()
                await agent.beats()
                longest = max(longest, loop.time() - began)
        return longest

    before = await slowest()
    queue.hangs = True
    for agent in agents:
        for sequence in range(1, 30):
            await tell(agent, sequence, *(error(number, stack="x" * 2000) for number in range(100)))
    await until(lambda: queue.asked, what="the queue is asked")
    assert await slowest() < max(0.5, 5 * before)
    assert not any(message.WhichOneof("message") == "errors_ack" for agent in agents for message in agent.received)


async def test_the_last_errors_of_an_agent_that_leaves_are_told(alone: Alone, queue: ToldQueue) -> None:
    agent = await alone.agent()
    await tell(agent, 1, error())
    await agent.send(pb.Goodbye(reason="shutdown"))
    await until(lambda: queue.counted, what="the error is told")


async def test_without_a_queue_errors_are_rejected_with_the_reason(servers: Servers) -> None:
    async with Alone.on(servers, PRUNELLA_QUEUE_ADDRESS="") as alone:
        agent = await alone.agent()
        await tell(agent, 1, error())
        (rejection,) = (await acknowledged(agent, 1)).rejections
        assert rejection.reason == "QUEUE_UNKNOWN"
        await agent.beats()


async def test_errors_of_many_agents_travel_together(alone: Alone, queue: ToldQueue) -> None:
    agents = [await alone.agent() for _ in range(20)]
    for agent in agents:
        await tell(agent, 1, error())
    for agent in agents:
        await acknowledged(agent, 1)
    assert len(queue.counted) == 20 and len(queue.asked) < 20
