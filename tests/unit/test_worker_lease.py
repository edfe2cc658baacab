"""A lease as its holder may trust it: less than was given, and never longer than the queue's last word."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio

import pytest

from libs.common.errors import Stale, Unavailable
from prunella.v1 import queue_pb2
from services.queue.worker import lease as leases
from services.queue.worker.lease import Lease, LeaseLost


class Queue:
    """Answers questions for more time as it is told."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def ExtendTask(self, request: queue_pb2.ExtendTaskRequest, timeout: float) -> queue_pb2.ExtendTaskResponse:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer
        return queue_pb2.ExtendTaskResponse()


AWAY = Unavailable("the queue cannot be reached", reason="UNREACHABLE")
STALE = Stale("somebody else has it", reason="LEASE_LOST")


def made(queue: Queue, seconds: float, ago: float = 0.0) -> Lease:
    leased = queue_pb2.LeasedTask(task=queue_pb2.Task(name="tasks/t"), token=3)
    return Lease(queue, leased, seconds, asyncio.get_running_loop().time() - ago)


async def forever() -> None:
    await asyncio.Event().wait()


async def quick() -> str:
    return "done"


async def test_it_is_trusted_five_seconds_less_and_a_third_when_short() -> None:
    assert made(Queue(None), 30).left == pytest.approx(25, abs=0.1)
    assert made(Queue(None), 6).left == pytest.approx(4, abs=0.1)


async def test_work_is_cut_off_when_no_word_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RETRY_SECONDS", 0.02)
    lease, began = made(Queue(AWAY), 0.6), asyncio.get_running_loop().time()
    with pytest.raises(LeaseLost, match="no word"):
        await lease.hold(forever)
    assert 0.3 < asyncio.get_running_loop().time() - began < 0.6
    with pytest.raises(LeaseLost):
        lease.confirm()


async def test_work_is_cut_off_at_once_when_the_queue_says_no() -> None:
    with pytest.raises(LeaseLost, match="somebody else"):
        await made(Queue(STALE), 1.5).hold(forever)


async def test_a_word_that_comes_late_but_in_time_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RETRY_SECONDS", 0.02)
    queue = Queue(AWAY, AWAY, None)
    lease = made(queue, 0.9)

    async def work() -> int:
        await asyncio.sleep(1.0)
        return queue.asked

    assert await lease.hold(work) >= 3
    lease.confirm()


async def test_a_claim_that_waited_long_asks_before_it_begins() -> None:
    queue = Queue(None)
    assert await made(queue, 30, ago=20).hold(quick) == "done"
    assert queue.asked == 1
    with pytest.raises(LeaseLost, match="somebody else"):
        await made(Queue(STALE), 30, ago=20).hold(quick)
    fresh = Queue(None)
    await made(fresh, 30, ago=1).hold(quick)
    assert fresh.asked == 0


async def test_errors_and_timeouts_of_the_work_are_its_own() -> None:
    async def late() -> None:
        raise TimeoutError("a tool's")

    with pytest.raises(TimeoutError, match="a tool's"):
        await made(Queue(None), 30).hold(late)


def test_durations_are_whole_on_the_wire() -> None:
    assert leases.duration(2.5) == leases.Duration(seconds=2, nanos=500_000_000)
