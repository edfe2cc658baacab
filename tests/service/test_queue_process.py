"""queue as a service: it is healthy, and tells how much work there is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.testing import BackingServices, Plane, until
from prunella.v1 import queue_pb2
from prunella.v1.queue_pb2_grpc import QueueServiceStub


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[Plane]:
    plane = Plane(backing, names=["queue"])
    try:
        yield await plane.start()
    finally:
        await plane.stop()


async def test_every_state_is_told_even_when_nothing_is_in_it(alone: Plane) -> None:
    answer = await QueueServiceStub(alone.channel("queue")).GetQueueStats(queue_pb2.GetQueueStatsRequest(), timeout=5)
    states = ("pending", "processing", "retrying", "completed", "failed", "cancelled")
    assert dict(answer.tasks) == dict.fromkeys(states, 0)
    assert len(answer.reports) == 7
    assert not any(answer.reports.values())
    assert not answer.HasField("success_rate_percent"), "a figure without data is absent"
    assert answer.time.seconds > 0


async def test_it_serves_once_database_and_bus_answer(alone: Plane) -> None:
    stub = health_pb2_grpc.HealthStub(alone.channel("queue"))

    async def serving() -> bool:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="prunella.v1.QueueService"), timeout=2)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    await until(serving)
