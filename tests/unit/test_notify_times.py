"""When people hear: batching, quiet hours (also when the clocks jump), escalation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ops.notify import escalation
from services.ops.notify.batching import SHOWN, Batch, Throttle, deduplicated, due_time, next_throttle
from services.ops.notify.escalation import State
from services.ops.notify.message import Message, title
from services.ops.notify.model import DAYS, EscalationStep, Notice, QuietHours, Route
from services.ops.notify.quiet_hours import always_quiet, clock_time, nights, quiet_until
from services.ops.severity import Severity

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
WINDOW = 10 * SECOND
BERLIN = "Europe/Berlin"
NIGHT = QuietHours("night", BERLIN, "22:00", "07:00")
MOMENTS = st.integers(0, 4 * 366 * 24 * 60).map(lambda minutes: datetime(2024, 1, 1, tzinfo=UTC) + minutes * MINUTE)


def notice(number: int = 0, fact: str = "incident_escalated", severity: Severity = Severity.HIGH) -> Notice:
    return Notice(f"e{number:05}", NOW + number * SECOND, fact, severity, f"line {number}", f"{fact}:{number}")


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN), fold=fold).astimezone(UTC)


# Batching.


def test_a_batch_shows_the_worst_first_and_counts_the_rest() -> None:
    low = [notice(number, severity=Severity.LOW) for number in range(100)]
    batch = Batch(repeats=7).add(low).add([notice(200, "storm_started", Severity.CRITICAL)])
    assert (batch.facts, batch.repeats, batch.severity) == (101, 7, Severity.CRITICAL)
    assert batch.kinds == {"incident_escalated": 100, "storm_started": 1}
    assert len(batch.lines) == SHOWN
    assert [line.headline for line in batch.lines[:2]] == ["line 200", "line 0"]


def test_the_title_says_the_worst_and_how_many_and_stays_short() -> None:
    assert title(Batch().add([notice()])) == "[high] line 0"
    assert title(Batch().add([notice(), notice(1)]), step=1) == "[high] nobody answered: line 0 (and 1 more)"
    long = Notice("e", NOW, "x", Severity.LOW, "word " * 100, "k")
    assert len(title(Batch().add([long, notice()]))) <= 150


def test_a_message_counts_what_it_does_not_show() -> None:
    batch = Batch().add(notice(number) for number in range(10_000))
    message = Message(
        "d", "n", "ops", 0, title(batch), batch.severity, NOW, batch.facts, batch.kinds, batch.lines, asks=True
    )
    assert message.hidden == 10_000 - SHOWN
    assert "… and 9980 more: 10000 × incident escalated" in message.text
    assert "notifications ack n" in message.text
    assert len(message.text) < 3000


@given(st.lists(st.lists(st.integers(0, 1000), max_size=30), max_size=5))
def test_a_batch_says_the_same_however_its_facts_arrive(parts: list[list[int]]) -> None:
    bit_by_bit = Batch()
    for part in parts:
        bit_by_bit = bit_by_bit.add([notice(number) for number in part])
    at_once = Batch().add([notice(number) for part in parts for number in part])
    assert bit_by_bit == at_once
    assert at_once.facts == sum(map(len, parts))


def test_the_same_again_is_no_news() -> None:
    a, b = notice(1), notice(2)
    assert deduplicated([a, b, a], []) == ([a, b], [a])
    assert deduplicated([a, b], [a.key]) == ([b], [a])


def test_the_first_fact_after_a_calm_waits_one_window() -> None:
    assert next_throttle(None, WINDOW, NOW, urgent=False) == Throttle(NOW + WINDOW, WINDOW)
    assert next_throttle(Throttle(NOW - HOUR, 10 * MINUTE), WINDOW, NOW, urgent=False) == Throttle(NOW + WINDOW, WINDOW)


@given(st.integers(1, 7200), st.booleans())
def test_a_flood_however_long_gives_few_messages(seconds: int, urgent: bool) -> None:
    throttle: Throttle | None = None
    now, sent = NOW, 0
    for _ in range(seconds):
        now += SECOND
        if throttle is None or now >= throttle.due_time:
            throttle, sent = next_throttle(throttle, WINDOW, now, urgent=urgent), sent + 1
            assert now + WINDOW <= throttle.due_time <= now + (MINUTE if urgent else 10 * MINUTE)
    assert sent <= 7 + seconds // (60 if urgent else 600)


def test_a_message_is_due_in_the_morning_unless_it_is_critical() -> None:
    throttle = Throttle(berlin("2026-05-04T23:00:00"), WINDOW)
    assert due_time(throttle, [NIGHT], urgent=False) == berlin("2026-05-05T07:00:00")
    assert due_time(throttle, [NIGHT], urgent=True) == throttle.due_time
    assert due_time(throttle, [], urgent=False) == throttle.due_time


# Quiet hours.


@pytest.mark.parametrize(
    ("now", "loud"),
    [
        ("2026-05-04T21:59:59", "2026-05-04T21:59:59"),
        ("2026-05-04T22:00:00", "2026-05-05T07:00:00"),
        ("2026-05-05T00:00:00", "2026-05-05T07:00:00"),
        ("2026-05-05T06:59:59", "2026-05-05T07:00:00"),
        ("2026-05-05T07:00:00", "2026-05-05T07:00:00"),
    ],
)
def test_a_night_lasts_until_the_morning_on_its_own_clocks(now: str, loud: str) -> None:
    assert quiet_until([NIGHT], berlin(now)) == berlin(loud)


def test_the_same_moment_is_quiet_in_one_zone_and_not_in_another() -> None:
    assert quiet_until([NIGHT], NOW.replace(hour=21)) > NOW.replace(hour=21)
    assert quiet_until([QuietHours("n", "America/New_York", "22:00", "07:00")], NOW.replace(hour=21)) == NOW.replace(
        hour=21
    )


def test_nights_in_which_the_clocks_jump_end_when_the_clocks_say_so() -> None:
    # Nine hours on the wall are eight in spring and ten in autumn.
    assert quiet_until([NIGHT], berlin("2026-03-28T22:00:00")) - berlin("2026-03-28T22:00:00") == 8 * HOUR
    assert quiet_until([NIGHT], berlin("2026-10-24T22:00:00")) - berlin("2026-10-24T22:00:00") == 10 * HOUR


def test_an_end_that_the_spring_gap_skips_is_at_its_end() -> None:
    short = QuietHours("short", BERLIN, "22:00", "02:30")
    assert quiet_until([short], berlin("2026-03-29T00:00:00")) == berlin("2026-03-29T03:00:00")
    late = QuietHours("late", BERLIN, "02:30", "06:00")
    assert quiet_until([late], berlin("2026-03-29T01:59:59")) == berlin("2026-03-29T01:59:59")
    assert quiet_until([late], berlin("2026-03-29T03:00:00")) == berlin("2026-03-29T06:00:00")


def test_an_end_that_the_autumn_fold_repeats_comes_once() -> None:
    short = QuietHours("short", BERLIN, "22:00", "02:30")
    first = berlin("2026-10-25T02:30:00", fold=0)
    assert quiet_until([short], berlin("2026-10-25T01:00:00")) == first
    # The wall shows 02:10 once more, and it stays loud.
    again = berlin("2026-10-25T02:10:00", fold=1)
    assert quiet_until([short], again) == again


def test_a_weekend_is_one_night() -> None:
    weekend = QuietHours("weekend", BERLIN, "00:00", "24:00", ("sat", "sun"))
    assert quiet_until([weekend, NIGHT], berlin("2026-05-08T23:00:00")) == berlin("2026-05-11T07:00:00")
    assert quiet_until([weekend], berlin("2026-05-08T23:00:00")) == berlin("2026-05-08T23:00:00")
    assert not always_quiet([weekend, NIGHT], NOW)
    assert always_quiet([QuietHours("all", BERLIN, "00:00", "24:00")], NOW)


@pytest.mark.parametrize("text", ["", "7", "7:00", "24:01", "12:60", "ab:cd", "1²:00", "-1:00", "12:00:00"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time of day"):
        clock_time(text)


@settings(max_examples=200)
@given(
    now=MOMENTS,
    zone=st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    start=st.integers(0, 47),
    length=st.integers(1, 47),
    days=st.lists(st.sampled_from(DAYS), unique=True),
)
def test_a_quiet_moment_has_a_loud_one_within_a_day_and_nothing_loud_before_it(
    now: datetime, zone: str, start: int, length: int, days: list[str]
) -> None:
    def clock(half_hours: int) -> str:
        return f"{half_hours % 48 // 2:02}:{half_hours % 2 * 30:02}"

    hours = QuietHours("q", zone, clock(start), clock(start + length), tuple(days))
    loud = quiet_until([hours], now)
    assert now <= loud <= now + 26 * HOUR
    assert quiet_until([hours], loud) == loud
    if loud > now:
        assert quiet_until([hours], loud - timedelta(milliseconds=1)) == loud
    for begin, end in nights(hours, now):
        assert timedelta(0) <= end - begin <= 26 * HOUR


# Escalation.

ROUTE = Route("ops", (EscalationStep(("chat",), 5 * MINUTE), EscalationStep(("mail", "hook"), 10 * MINUTE)))


def test_a_step_goes_unanswered_and_the_next_one_is_told_until_nobody_is_left() -> None:
    one = escalation.first(ROUTE, NOW)
    assert one
    assert (one.number, one.step, one.act_by_time) == (0, ROUTE.steps[0], NOW + 5 * MINUTE)
    two = escalation.following(ROUTE, 0, NOW)
    assert (two.number, two.step, two.act_by_time) == (1, ROUTE.steps[1], NOW + 10 * MINUTE)
    nobody = escalation.following(ROUTE, 1, NOW)
    assert (nobody.number, nobody.step, nobody.act_by_time) == (2, None, None)
    assert escalation.first(Route("", ()), NOW) is None


def test_a_step_that_waits_for_nobody_has_no_deadline() -> None:
    next_step = escalation.first(Route("r", (EscalationStep(("chat",)),)), NOW)
    assert next_step
    assert next_step.act_by_time is None


@pytest.mark.parametrize(
    ("act_by", "now", "urgent", "its_turn"),
    [
        (None, "2026-05-04T12:00:00", True, False),
        ("2026-05-04T12:00:01", "2026-05-04T12:00:00", True, False),
        ("2026-05-04T12:00:00", "2026-05-04T12:00:00", False, True),
        ("2026-05-04T23:00:00", "2026-05-04T23:00:00", False, False),
        ("2026-05-04T23:00:00", "2026-05-04T23:00:00", True, True),
        ("2026-05-04T23:00:00", "2026-05-05T07:00:00", False, True),
    ],
)
def test_the_next_step_waits_for_its_time_and_at_night_for_the_morning(
    act_by: str | None, now: str, urgent: bool, its_turn: bool
) -> None:
    moment = berlin(act_by) if act_by else None
    assert escalation.overdue(moment, [NIGHT], berlin(now), urgent=urgent) is its_turn


@pytest.mark.parametrize(
    ("deliveries", "state"),
    [
        ([State.QUEUED, State.SENT], State.SENDING),
        ([State.SENT, State.FAILED], State.SENT),
        ([State.FAILED, State.SUPPRESSED], State.FAILED),
        ([State.SUPPRESSED], State.SUPPRESSED),
        ([], State.SUPPRESSED),
    ],
)
def test_a_message_is_where_its_deliveries_are(deliveries: list[State], state: State) -> None:
    assert escalation.state(deliveries) is state


def test_a_step_gives_up_only_when_every_channel_failed() -> None:
    assert escalation.step_failed([State.FAILED, State.FAILED])
    assert not escalation.step_failed([State.FAILED, State.SENDING])
    assert not escalation.step_failed([State.FAILED, State.SENT])
    assert not escalation.step_failed([])


def of(number: int, incident: str, fact: str = "incident_escalated") -> Notice:
    return replace(notice(number, fact), incident=incident)


LATER = NOW + HOUR


@pytest.mark.parametrize(
    ("lines", "ended", "over"),
    [
        ([of(0, "a")], {"a": LATER}, True),
        ([of(0, "a")], {}, False),
        ([of(0, "a"), of(1, "b")], {"a": LATER}, False),
        ([of(0, "a"), of(1, "b"), of(2, "a", "attempt_unconfirmed")], {"a": LATER, "b": LATER}, True),
        # A storm is no incident, and what tells of the end is not over by it.
        ([of(0, "a"), of(1, "", "storm_started")], {"a": LATER}, False),
        ([of(0, "a", "incident_closed")], {"a": NOW}, False),
        ([], {}, False),
        # Not every line of a flood is there to be looked at; kinds that only incidents have need not be.
        ([of(number, f"i{number}") for number in range(40)], {f"i{number}": LATER for number in range(40)}, True),
        ([of(number, f"i{number}") for number in range(40)], {f"i{number}": LATER for number in range(39)}, False),
        (
            [of(number, f"i{number}", "attempt_unconfirmed") for number in range(40)],
            {f"i{number}": LATER for number in range(40)},
            False,
        ),
        ([of(number, f"i{number}") for number in range(60)], {f"i{number}": LATER for number in range(60)}, False),
    ],
)
def test_a_message_is_over_when_every_incident_it_is_about_has_ended(
    lines: list[Notice], ended: dict[str, datetime], over: bool
) -> None:
    incidents = list(dict.fromkeys(line.incident for line in lines if line.incident))[:50]
    assert escalation.incidents_ended(Batch().add(lines), incidents, ended, named=50) is over
