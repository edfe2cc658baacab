"""The manual clock moves only when told and wakes sleepers in order."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from libs.common.clock import ManualClock, SystemClock

START = datetime(2026, 3, 1, tzinfo=UTC)


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock, woken = ManualClock(START), []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper(name, seconds)) for name, seconds in (("late", 5), ("soon", 1), ("next", 2))]
    await clock.advance_async(3)
    assert woken == [("soon", 1), ("next", 2)]
    assert clock.sleeping == 1
    await clock.advance_async(2)
    assert woken[-1] == ("late", 5)
    await asyncio.gather(*tasks)


async def test_a_loop_that_sleeps_again_runs_once_per_interval() -> None:
    clock, ticks = ManualClock(START), []

    async def loop() -> None:
        while True:
            await clock.sleep(1)
            ticks.append(clock.now())

    task = asyncio.create_task(loop())
    await clock.advance_async(3.5)
    assert ticks == [START + timedelta(seconds=n) for n in (1, 2, 3)]
    assert clock.now() == START + timedelta(seconds=3.5)
    task.cancel()


async def test_a_cancelled_sleeper_is_not_counted() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(10))
    await asyncio.sleep(0)
    assert clock.sleeping == 1
    task.cancel()
    await asyncio.wait({task})
    assert clock.sleeping == 0
    clock.advance(20)


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        ManualClock().advance(-1)


def test_a_clock_starts_at_an_aware_moment_and_speaks_utc() -> None:
    with pytest.raises(ValueError, match="aware"):
        ManualClock(datetime(2026, 1, 1))  # noqa: DTZ001
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert ManualClock(east).now() == datetime(2026, 1, 1, tzinfo=UTC)
    assert ManualClock(east).now().tzinfo is UTC


async def test_the_system_clock_is_aware_and_does_not_wait_for_the_past() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(-5)
    assert clock.monotonic() - before < 1
    assert clock.now().tzinfo is UTC
