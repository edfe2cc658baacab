"""Times and durations, there and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from libs.common.errors import Invalid
from libs.common.timestamps import moment


def stamp(time: datetime | None) -> Timestamp | None:
    """A time as protobuf; None stays unset."""
    if time is None:
        return None
    made = Timestamp()
    made.FromDatetime(time)
    return made


def seconds_stamp(seconds: float) -> Timestamp | None:
    """Unix seconds as protobuf; nothing for 0."""
    return stamp(datetime.fromtimestamp(seconds, UTC)) if seconds else None


def span(seconds: float) -> Duration:
    """Seconds as protobuf."""
    made = Duration()
    made.FromTimedelta(timedelta(seconds=seconds))
    return made


def from_json(value: str | float | None, field: str) -> Timestamp | None:
    """A time as plain clients send it: RFC 3339, or milliseconds since 1970; None when unset. Raises Invalid."""
    if value is None:
        return None
    made = Timestamp()
    try:
        if isinstance(value, str):
            made.FromJsonString(value)
        else:
            made.FromMilliseconds(round(value))
    except (ValueError, OverflowError) as error:
        raise Invalid(
            f"{field} must be RFC 3339 or milliseconds since 1970", reason="TIME_INVALID", field=field
        ) from error
    moment(made, field)
    return made
