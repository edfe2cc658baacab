"""Parts start in order and stop in reverse; loops and sweeps outlive their failures."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from libs.common.clock import ManualClock
from libs.common.runtime import Loop, Sweeps, start_parts, stop_parts
from libs.common.telemetry import Telemetry, current_telemetry
from tests.ignored_cancellation import IgnoresFirstCancellation


class Piece:
    """A part that writes down what happens to it."""

    def __init__(self, name: str, diary: list[str], *, breaks: str = "", hangs: bool = False) -> None:
        self.name, self.diary, self.breaks, self.hangs = name, diary, breaks, hangs

    async def start(self) -> None:
        self.diary.append(f"+{self.name}")
        if self.breaks == "start":
            raise OSError(self.name)

    async def stop(self) -> None:
        self.diary.append(f"-{self.name}")
        if self.breaks == "stop":
            raise OSError(self.name)
        if self.hangs:
            await asyncio.Event().wait()


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def test_parts_start_in_order_and_stop_in_reverse() -> None:
    diary: list[str] = []
    parts = [Piece(name, diary) for name in "abc"]
    await start_parts(parts)
    await stop_parts(parts)
    assert diary == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_a_failed_start_stops_what_was_started_and_is_told() -> None:
    diary: list[str] = []
    parts = [Piece("a", diary), Piece("b", diary, breaks="start"), Piece("c", diary)]
    with pytest.raises(OSError, match="b"):
        await start_parts(parts)
    assert diary == ["+a", "+b", "-b", "-a"]


async def test_a_part_that_breaks_or_hangs_does_not_keep_the_others_from_stopping() -> None:
    diary: list[str] = []
    parts = [Piece("a", diary), Piece("b", diary, breaks="stop"), Piece("c", diary, hangs=True)]
    await stop_parts(parts, timeout=0.05)
    assert diary == ["-c", "-b", "-a"]


async def test_parts_run_as_their_service() -> None:
    seen: list[str] = []

    class Named(Piece):
        async def start(self) -> None:
            seen.append(current_telemetry().service)

    await start_parts([Named("a", [])], Telemetry("patcher"))
    assert seen == ["patcher"]


async def test_a_loop_goes_on_after_a_failed_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.common.runtime.loops.FIRST_PAUSE", 0.001)
    rounds = 0

    async def round_() -> None:
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise OSError("database away")

    loop = Loop("test", round_, every=0.001)
    await loop.start()
    await eventually(lambda: rounds > 5)
    await loop.stop()
    ended = rounds
    await asyncio.sleep(0.02)
    assert rounds == ended


async def test_a_trigger_begins_the_next_round_at_once() -> None:
    rounds = 0

    async def round_() -> None:
        nonlocal rounds
        rounds += 1

    loop = Loop("test", round_, every=3600)
    await loop.start()
    await eventually(lambda: rounds == 1)
    loop.trigger()
    await eventually(lambda: rounds == 2)
    await loop.stop()


async def test_a_trigger_during_a_round_is_not_lost() -> None:
    rounds, in_round, go_on = 0, asyncio.Event(), asyncio.Event()

    async def round_() -> None:
        nonlocal rounds
        rounds += 1
        in_round.set()
        await go_on.wait()

    loop = Loop("test", round_, every=3600)
    await loop.start()
    await asyncio.wait_for(in_round.wait(), 5)
    loop.trigger()
    go_on.set()
    await eventually(lambda: rounds == 2)
    await loop.stop()


async def test_a_round_that_did_not_hear_that_it_should_stop_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.common.cancellation.REPEAT_SECONDS", 0.01)
    round_ = IgnoresFirstCancellation()
    loop = Loop("test", round_, every=0.001)
    await loop.start()
    await asyncio.wait_for(round_.started.wait(), 5)
    async with asyncio.timeout(5):
        await loop.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "test"]


async def test_stopping_a_loop_that_never_started_is_harmless() -> None:
    await Loop("test", asyncio.Event().wait, every=1).stop()


async def test_a_test_does_the_sweeps_by_hand_at_its_own_time() -> None:
    done: list[tuple[str, str, datetime]] = []

    async def escalate(ctx: str, now: datetime) -> int:
        done.append(("escalate", ctx, now))
        return 2

    async def expire(ctx: str, now: datetime) -> int:
        done.append(("expire", ctx, now))
        return 1

    clock = ManualClock()
    sweeps = Sweeps("ingest", "doors", {"escalate": (5, escalate), "expire": (1, expire)}, clock)
    later = datetime(2030, 1, 1, tzinfo=UTC)
    assert await sweeps.run_once("escalate", later) == 2
    assert await sweeps.run_once("expire", later) == 1
    assert await sweeps.run_once("expire") == 1
    assert await sweeps.run_once("escalate") == 2
    assert done == [
        ("escalate", "doors", later),
        ("expire", "doors", later),
        ("expire", "doors", clock.now()),
        ("escalate", "doors", clock.now()),
    ]


async def test_sweeps_run_by_themselves_when_started() -> None:
    times: list[datetime] = []

    async def look(ctx: None, now: datetime) -> int:
        times.append(now)
        return 0

    clock = ManualClock()
    sweeps = Sweeps("ingest", None, {"look": (0.001, look)}, clock)
    await sweeps.start()
    await eventually(lambda: len(times) > 3)
    await sweeps.stop()
    assert set(times) == {clock.now()}
