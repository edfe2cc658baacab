"""Times and durations from outside are bounded once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from libs.common.timestamps import EARLIEST, LATEST, LONGEST, bounded, length, moment


@pytest.mark.parametrize("time", [EARLIEST, datetime(1970, 1, 1, tzinfo=UTC), LATEST - timedelta(microseconds=1)])
def test_whatever_can_be_shifted_and_shown_is_a_time(time: datetime) -> None:
    assert bounded(time, "time") == time
    message = Timestamp()
    message.FromDatetime(time)
    assert moment(message, "time") == time


@pytest.mark.parametrize(
    "time",
    [
        EARLIEST - timedelta(microseconds=1),
        LATEST,
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    ],
)
def test_what_would_overflow_is_refused_by_its_field(time: datetime) -> None:
    with pytest.raises(Invalid) as refused:
        bounded(time, "errors.0.time")
    assert (refused.value.reason, refused.value.field) == ("TIME_INVALID", "errors.0.time")
    assert "2 to 9998" in refused.value.message


def test_a_time_without_a_zone_is_utc_and_one_with_a_zone_is_brought_to_it() -> None:
    noon = datetime(2026, 5, 4, 12, tzinfo=UTC)
    assert bounded(noon.replace(tzinfo=None), "time") == noon
    east = datetime(2026, 5, 4, 14, tzinfo=timezone(timedelta(hours=2)))
    found = bounded(east, "time")
    assert (found, found.tzinfo) == (noon, UTC)


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (0, 2_000_000_000), (253_402_300_800, 0)])
def test_a_message_that_names_no_time_is_refused(seconds: int, nanos: int) -> None:
    with pytest.raises(Invalid) as refused:
        moment(Timestamp(seconds=seconds, nanos=nanos), "since_time")
    assert (refused.value.reason, refused.value.field) == ("TIME_INVALID", "since_time")


@pytest.mark.parametrize("seconds", [0, 1, -1, 86400 * 36_525, -86400 * 36_525])
def test_a_duration_of_up_to_a_hundred_years_is_one(seconds: int) -> None:
    assert length(Duration(seconds=seconds), "lifetime") == timedelta(seconds=seconds)


@pytest.mark.parametrize("seconds", [86400 * 36_525 + 1, -86400 * 36_525 - 1, 2**62, -(2**62)])
def test_a_longer_one_is_refused_by_its_field(seconds: int) -> None:
    with pytest.raises(Invalid) as refused:
        length(Duration(seconds=seconds), "lifetime")
    assert (refused.value.reason, refused.value.field) == ("DURATION_INVALID", "lifetime")


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_every_message_gives_a_time_one_may_calculate_with_or_is_refused(seconds: int, nanos: int) -> None:
    try:
        found = moment(Timestamp(seconds=seconds, nanos=nanos), "time")
    except Invalid:
        return
    for zone in (-23, 0, 23):
        assert found.astimezone(timezone(timedelta(hours=zone))).isoformat()
    assert (found + LONGEST if found < LATEST - LONGEST else found - LONGEST).isoformat()
