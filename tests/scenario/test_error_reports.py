"""From an agent's error to a row of the queue: a flood is one row, nothing is lost and nothing counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.local.testing import BackingServices, FakeAgent, Plane, until
from prunella.v1 import queue_pb2, queue_pb2_grpc
from prunella_agent.error_counters import ErrorCounters


@pytest.fixture
async def plane(backing: BackingServices) -> AsyncIterator[Plane]:
    """An ingest and a queue."""
    made = Plane(backing, environ={"INGEST_BEAT_SECONDS": "1"}, names=("ingest", "queue"))
    try:
        yield await made.start()
    finally:
        await made.stop()


async def agent(plane: Plane) -> FakeAgent:
    """One that tells its errors again soon."""
    made = await plane.agent("shop-7")
    made.session.errors = ErrorCounters(pace=0.05, again=(0.5, 1.0))
    return made


async def rows(plane: Plane) -> list[queue_pb2.ErrorReportGroup]:
    """Every report of the queue."""
    queue: Any = queue_pb2_grpc.QueueServiceStub(plane.channel("queue"))
    return list((await queue.ListErrorReports(queue_pb2.ListErrorReportsRequest(page_size=100), timeout=10)).reports)


async def test_ten_thousand_errors_of_one_kind_are_one_row_and_a_few_small_messages(plane: Plane) -> None:
    shop = await agent(plane)
    sizes: list[int] = []
    told = shop.session.errors.next

    def next_one(now: float) -> Any:
        message = told(now)
        if message is not None:
            sizes.append(message.ByteSize())
        return message

    shop.session.errors.next = next_one  # type: ignore[method-assign]
    for number in range(10_000):
        shop.error(f"order {number} has no price", stack="at total (cart.js:1:2)\n", severity="high")
        if number % 500 == 0:
            await asyncio.sleep(0)
    await shop.acknowledged()
    (row,) = await rows(plane)
    assert (row.occurrences, row.source) == (10_000, "agent") and row.message.endswith("has no price")
    assert (row.plugin, row.merchant, row.package, row.release) == (shop.plugin, "merchant-shop-7", "relay", "1.2.0")
    assert len(sizes) < 200 and max(sizes) < 2_000


async def test_while_the_queue_is_away_nothing_is_lost_and_nothing_is_doubled(plane: Plane) -> None:
    shop = await agent(plane)
    shop.error(times=3)
    shop.error("no cart", type="KeyError", times=2)
    await shop.acknowledged()
    await plane.stop_service("queue")
    shop.error(times=4)
    shop.error("the disk is full", type="OSError")
    shop.beat()
    await until(lambda: shop.session.pending_beats == 0, what="beats go on")
    shop.error(times=5)
    await plane.start_service("queue")
    await until(lambda: shop.session.errors.pending == 0, 30.0, what="the errors are told")
    assert sorted(row.occurrences for row in await rows(plane)) == [1, 2, 12]


async def test_a_message_that_is_told_again_counts_once(plane: Plane) -> None:
    shop = await agent(plane)
    shop.error(times=7)
    await shop.acknowledged()
    for counter in shop.session.errors._counters.values():
        counter.acknowledged = 0
    shop.error("another")
    await shop.acknowledged()
    assert sorted(row.occurrences for row in await rows(plane)) == [1, 7]


async def test_an_ingest_that_ends_loses_no_error(plane: Plane) -> None:
    shop = await agent(plane)
    await until(lambda: shop.session.connected)
    for times in (1, 2, 3):
        shop.error(times=times)
    await plane.stop_service("ingest")
    shop.error(times=10)
    await plane.start_service("ingest")
    await until(lambda: shop.session.errors.pending == 0, 30.0, what="the errors are told")
    (row,) = await rows(plane)
    assert row.occurrences == 16
