"""Freeze windows: what the clocks of a place say, also on the two nights when they jump."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.common.errors import Invalid
from services.patcher.freeze import FreezeWindow, check, check_all, frozen_until

HOUR = timedelta(hours=1)
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
WEEKEND = FreezeWindow("0 18 * * 5", BERLIN, 62 * HOUR, "nobody is in the office")


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN), fold=fold)


def until(window: FreezeWindow, now: datetime) -> datetime | None:
    found = frozen_until([window], now)
    return found.until if found else None


@pytest.mark.parametrize(
    ("now", "frozen"),
    [
        ("2026-03-06T17:59:59", False),
        ("2026-03-06T18:00:00", True),
        ("2026-03-08T12:00:00", True),
        ("2026-03-09T07:59:59", True),
        ("2026-03-09T08:00:00", False),
    ],
)
def test_a_weekend_is_frozen_from_friday_evening_until_monday_morning(now: str, frozen: bool) -> None:
    found = frozen_until([WEEKEND], berlin(now))
    assert bool(found) == frozen
    if found:
        assert found.until == berlin("2026-03-09T08:00:00")
        assert found.until.tzinfo is UTC
        assert found.reason == "changes are frozen until 2026-03-09 08:00 CET: nobody is in the office"


def test_a_weekend_in_which_the_clocks_jump_ends_no_earlier_than_on_the_wall_and_by_the_stopwatch() -> None:
    # Spring, an hour short on the wall: 62 hours have passed at 09:00. Autumn, an hour long: the wall says 08:00.
    assert until(WEEKEND, berlin("2026-03-28T12:00:00")) == berlin("2026-03-30T09:00:00")
    assert until(WEEKEND, berlin("2026-10-24T12:00:00")) == berlin("2026-10-26T08:00:00")


def test_a_start_that_the_spring_gap_skips_is_at_its_end() -> None:
    window = FreezeWindow("30 2 * * *", BERLIN, HOUR)
    assert until(window, berlin("2026-03-29T01:59:59")) is None
    assert until(window, berlin("2026-03-29T03:00:00")) == berlin("2026-03-29T04:00:00")
    assert until(window, berlin("2026-03-29T04:00:00")) is None


def test_a_start_that_the_autumn_fold_repeats_is_at_its_first_pass_and_lasts_through_the_second() -> None:
    window = FreezeWindow("30 2 * * *", BERLIN, HOUR)
    end = berlin("2026-10-25T03:30:00")
    assert until(window, berlin("2026-10-25T02:29:00", fold=0)) is None
    for moment in ("2026-10-25T02:30:00", "2026-10-25T02:59:00"):
        for fold in (0, 1):
            assert until(window, berlin(moment, fold)) == end
    # Between the passes the wall shows 02:10 for the second time, yet the window began forty minutes ago.
    assert until(window, berlin("2026-10-25T02:10:00", fold=1)) == end
    assert until(window, berlin("2026-10-25T03:30:00")) is None
    evening = FreezeWindow("30 0 * * *", BERLIN, 2 * HOUR)
    # A time that comes twice equals no time of another zone (PEP 495), so both are told in UTC.
    assert until(evening, berlin("2026-10-25T01:00:00")) == berlin("2026-10-25T02:30:00", fold=1).astimezone(UTC)


def test_the_same_moment_is_frozen_in_one_zone_and_not_in_another() -> None:
    now = datetime(2026, 7, 1, 20, tzinfo=UTC)
    night = "0 22 * * *"
    assert until(FreezeWindow(night, BERLIN, HOUR), now) == now + HOUR
    assert until(FreezeWindow(night, NEW_YORK, HOUR), now) is None


def test_windows_that_touch_or_overlap_thaw_together_and_the_first_one_is_named() -> None:
    evening = FreezeWindow("0 18 * * *", "UTC", 4 * HOUR, "evening")
    night = FreezeWindow("0 22 * * *", "UTC", 4 * HOUR, "night")
    found = frozen_until([night, evening], datetime(2026, 5, 4, 19, tzinfo=UTC))
    assert found
    assert found.until == datetime(2026, 5, 5, 2, tzinfo=UTC)
    assert found.window is evening
    assert "evening" in found.reason


def test_a_freeze_without_an_end_is_answered_all_the_same() -> None:
    always = FreezeWindow("* * * * *", BERLIN, 24 * HOUR)
    now = datetime(2026, 5, 4, tzinfo=UTC)
    found = frozen_until([always], now)
    assert found
    assert found.until >= now + timedelta(days=90)


def test_no_windows_freeze_nothing_and_an_unreadable_one_does() -> None:
    now = datetime(2026, 5, 4, tzinfo=UTC)
    assert frozen_until([], now) is None
    for broken in (FreezeWindow("0 0 * * *", "Atlantis/Lost", HOUR), FreezeWindow("nonsense", "UTC", HOUR)):
        found = frozen_until([broken], now)
        assert found
        assert "cannot be read" in found.reason


@pytest.mark.parametrize(
    ("window", "field"),
    [
        (FreezeWindow("0 18 * * 5", "Mars/Olympus", HOUR), "time_zone"),
        (FreezeWindow("0 18 * * 5", "", HOUR), "time_zone"),
        (FreezeWindow("0 18 * * 5", "../etc/passwd", HOUR), "time_zone"),
        (FreezeWindow("0 18 * * 5", "Europe", HOUR), "time_zone"),
        (FreezeWindow("0 18 * * 5", "UTC\0", HOUR), "time_zone"),
        (FreezeWindow("61 * * * *", "UTC", HOUR), "cron"),
        (FreezeWindow("0 0 31 2 *", "UTC", HOUR), "cron"),
        (FreezeWindow("0 0 0 * * *", "UTC", HOUR), "cron"),
        (FreezeWindow("", "UTC", HOUR), "cron"),
        (FreezeWindow("5-1 * * * *", "UTC", HOUR), "cron"),
        (FreezeWindow("0," * 60 + "0 * * * *", "UTC", HOUR), "cron"),
        (FreezeWindow("0 0 * * *", "UTC", timedelta(0)), "duration"),
        (FreezeWindow("0 0 * * *", "UTC", timedelta(days=32)), "duration"),
    ],
)
def test_a_window_without_sense_is_refused_with_field_rule_and_remedy(window: FreezeWindow, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_all((WEEKEND, window))
    assert refused.value.field == f"freeze_windows[1].{field}"
    assert {"rule", "remedy"} <= refused.value.metadata.keys()


def test_a_leap_day_is_a_day_and_fifty_one_windows_are_too_many() -> None:
    check(FreezeWindow("0 0 29 2 *", "UTC", HOUR))
    with pytest.raises(Invalid):
        check_all((WEEKEND,) * 51)


EXPRESSIONS = ["30 2 * * *", "0 3 * * *", "*/20 * * * *", "15 1-3 * * *", "59 23 * * *", "0 * * * *", "0 2 * * 0"]


@settings(max_examples=300)
@example("*/20 * * * *", BERLIN, "2026-10-25", 60, 1)
@example("*/20 * * * *", BERLIN, "2026-10-25", 75, 1)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from([BERLIN, NEW_YORK, "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
    st.sampled_from(["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01", "2026-06-10"]),
    st.integers(-720, 2160),
    st.sampled_from([1, 17, 45, 60, 90]),
)
def test_being_frozen_agrees_with_walking_through_every_start(
    cron: str, zone: str, day: str, minute: int, lasts: int
) -> None:
    window = FreezeWindow(cron, zone, timedelta(minutes=lasts))
    now = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(minutes=minute, seconds=minute % 60)
    walk = CronSim(cron, (now - timedelta(days=8)).astimezone(ZoneInfo(zone)))
    ends = []
    for start in walk:
        begun = start.astimezone(UTC)
        if begun > now:
            break
        wall = (start + window.duration).replace(fold=1).astimezone(UTC)
        ends.append(max(begun + window.duration, wall))
    found = frozen_until([window], now)
    assert bool(found) == any(end > now for end in ends)
    if found:
        assert found.until >= max(ends)
