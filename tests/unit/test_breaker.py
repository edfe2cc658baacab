"""A breaker opens on evidence, lets few probes through, and closes on success."""

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from libs.common.breaker import Breaker, BreakerRule, BreakerState, Guarded
from libs.common.clock import ManualClock
from libs.common.errors import Invalid, Unavailable

RULE = BreakerRule(window=10, volume=4, threshold=0.5, open_for=5, probes=2, successes=2)


def call(breaker: Breaker, now: float, *, ok: bool) -> bool:
    ticket = breaker.admit(now)
    if ticket is not None:
        breaker.record(ticket, now, ok=ok)
    return ticket is not None


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(RULE)
    for _ in range(RULE.volume):
        call(breaker, at, ok=False)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_few_failures_are_no_evidence() -> None:
    breaker = Breaker(RULE)
    for _ in range(3):
        assert call(breaker, 0, ok=False)
    assert breaker.state is BreakerState.CLOSED


def test_it_opens_at_the_threshold_and_asks_nothing_for_a_while() -> None:
    breaker = Breaker(RULE)
    for ok in (True, True, False, False):
        assert call(breaker, 1, ok=ok)
    assert breaker.state is BreakerState.OPEN
    assert not call(breaker, 5.9, ok=True)
    assert breaker.retry_after(4) == 2
    assert breaker.retry_after(60) == 0


def test_failures_older_than_the_window_do_not_count() -> None:
    breaker = Breaker(RULE)
    for _ in range(3):
        call(breaker, 0, ok=False)
    call(breaker, 10.1, ok=False)
    assert breaker.state is BreakerState.CLOSED


def test_half_open_lets_no_more_than_the_probes_through() -> None:
    breaker = opened()
    tickets = [breaker.admit(5) for _ in range(4)]
    assert [ticket is not None for ticket in tickets] == [True, True, False, False]
    assert breaker.state is BreakerState.HALF_OPEN


def test_enough_good_probes_close_it() -> None:
    breaker = opened()
    assert call(breaker, 5, ok=True)
    assert breaker.state is BreakerState.HALF_OPEN
    assert call(breaker, 5, ok=True)
    assert breaker.state is BreakerState.CLOSED
    assert call(breaker, 5, ok=False), "what was before the opening is forgotten"
    assert breaker.state is BreakerState.CLOSED


def test_one_bad_probe_opens_it_again_for_the_whole_time() -> None:
    breaker = opened()
    call(breaker, 6, ok=False)
    assert breaker.state is BreakerState.OPEN
    assert not call(breaker, 10.9, ok=True)
    assert call(breaker, 11, ok=True)


def test_a_late_answer_from_before_says_nothing_about_now() -> None:
    breaker = Breaker(RULE)
    slow = breaker.admit(0)
    assert slow is not None
    for _ in range(4):
        call(breaker, 0, ok=False)
    probe = breaker.admit(5)
    breaker.record(slow, 5, ok=False)
    assert breaker.state is BreakerState.HALF_OPEN
    assert probe is not None
    assert breaker.probing == 1


def test_a_released_probe_makes_room_for_the_next() -> None:
    breaker = opened()
    tickets = [breaker.admit(5), breaker.admit(5)]
    assert breaker.admit(5) is None
    assert tickets[0] is not None
    breaker.release(tickets[0])
    assert breaker.admit(5) is not None


@pytest.mark.parametrize(
    "wrong", [{"volume": 0}, {"threshold": 0}, {"threshold": 1.1}, {"probes": 0}, {"most_outcomes": 1}]
)
def test_a_rule_that_could_never_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="could never work"):
        BreakerRule(**wrong)


STEPS = st.lists(st.tuples(st.floats(0, 4), st.sampled_from(["admit", "good", "bad", "release"])), max_size=120)


@given(STEPS)
def test_whatever_happens_it_is_bounded_and_always_recovers(steps: list[tuple[float, str]]) -> None:
    rule = BreakerRule(window=10, volume=3, open_for=5, probes=2, successes=2, most_outcomes=8)
    breaker, now, tickets = Breaker(rule), 0.0, []
    for pause, step in steps:
        now += pause
        if step == "admit":
            ticket = breaker.admit(now)
            if breaker.state is BreakerState.OPEN:
                assert ticket is None
            if ticket is not None:
                tickets.append(ticket)
        elif tickets:
            ticket = tickets.pop(0)
            if step == "release":
                breaker.release(ticket)
            else:
                breaker.record(ticket, now, ok=step == "good")
        assert 0 <= breaker.probing <= rule.probes
        assert len(breaker.outcomes) <= rule.most_outcomes
    for ticket in tickets:
        breaker.release(ticket)
    # When everything is well again, it closes after a few calls and stays closed.
    for _ in range(2 * rule.most_outcomes):
        if not call(breaker, now, ok=True):
            now += rule.open_for
    assert breaker.state is BreakerState.CLOSED


async def fine() -> str:
    return "yes"


async def broken() -> str:
    raise OSError("no route")


def guarded() -> tuple[Guarded, ManualClock, list[tuple[str, BreakerState]]]:
    clock, told = ManualClock(), []
    rule = BreakerRule(volume=2, open_for=5)
    breaker = Guarded("sira", clock, rule, on_change=lambda *change: told.append(change), fails=is_failure)
    return breaker, clock, told


def is_failure(error: Exception) -> bool:
    return not isinstance(error, Invalid)


async def test_an_open_breaker_answers_without_asking_and_tells_when_to_come_back() -> None:
    breaker, clock, told = guarded()
    for _ in range(2):
        with pytest.raises(OSError, match="no route"):
            await breaker.call(broken, timeout=1)
    asked = []

    async def never() -> None:
        asked.append(1)

    clock.advance(2)
    with pytest.raises(Unavailable) as caught:
        await breaker.call(never, timeout=1)
    assert (caught.value.reason, caught.value.retry_after, asked) == ("BREAKER_OPEN", 3, [])
    clock.advance(3)
    assert await breaker.call(fine, timeout=1) == "yes"
    assert told == [
        ("sira", BreakerState.OPEN),
        ("sira", BreakerState.HALF_OPEN),
        ("sira", BreakerState.CLOSED),
    ]


async def test_slowness_counts_and_our_own_mistakes_do_not() -> None:
    breaker, _, _ = guarded()

    async def refuse() -> None:
        raise Invalid("bad question", reason="BAD")

    for _ in range(5):
        with pytest.raises(Invalid):
            await breaker.call(refuse, timeout=1)
    assert breaker.state is BreakerState.CLOSED
    breaker, _, _ = guarded()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await breaker.call(asyncio.Event().wait, timeout=0.01)
    assert breaker.state is BreakerState.OPEN


async def test_a_cancelled_probe_gives_its_place_back() -> None:
    breaker, clock, _ = guarded()
    for _ in range(2):
        with pytest.raises(OSError, match="no route"):
            await breaker.call(broken, timeout=1)
    clock.advance(5)
    probe = asyncio.create_task(breaker.call(asyncio.Event().wait, timeout=60))
    await asyncio.sleep(0)
    assert breaker.state is BreakerState.HALF_OPEN
    probe.cancel()
    await asyncio.wait({probe})
    assert await breaker.call(fine, timeout=1) == "yes"


async def test_open_breakers_are_counted_by_what_they_stand_before() -> None:
    def count() -> float | None:
        return REGISTRY.get_sample_value("prunella_breakers_open", {"kind": "demo"})

    clock = ManualClock()
    first, second = (Guarded(name, clock, BreakerRule(volume=1, open_for=5), kind="demo") for name in "ab")
    assert count() == 0
    for each in (first, second):
        with pytest.raises(OSError, match="no route"):
            await each.call(broken, timeout=1)
    assert count() == 2
    clock.advance(5)
    assert await first.call(fine, timeout=1) == "yes"
    assert count() == 1
    # One that nobody holds any more stands before nothing.
    del second, each
    gc.collect()
    assert count() == 0
