"""Times and durations from outside, bounded once: whatever is stored, shifted or shown behind it cannot overflow.

Rule: every moment that a caller, an agent or a client names comes through `moment` (protobuf) or `bounded` (Python). A
year is left at either end of what can be written, so that a time zone or a lifetime added to it is still a time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from libs.common.errors import Invalid

EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 1, 1, tzinfo=UTC)
LONGEST = timedelta(days=36_525)


def moment(timestamp: Timestamp, field: str) -> datetime:
    """A time of a message, in UTC. Raises Invalid naming the field."""
    try:
        return bounded(timestamp.ToDatetime(UTC), field)
    except (ValueError, OverflowError) as error:
        raise _invalid(field) from error


def bounded(time: datetime, field: str) -> datetime:
    """A time in UTC; one without a zone is UTC. Raises Invalid naming the field."""
    try:
        found = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _invalid(field) from error
    if not EARLIEST <= found < LATEST:
        raise _invalid(field)
    return found


def length(duration: Duration, field: str) -> timedelta:
    """A duration of a message. Raises Invalid naming the field."""
    try:
        found: timedelta = duration.ToTimedelta()
    except (ValueError, OverflowError):
        found = timedelta.max
    if abs(found) > LONGEST:
        raise Invalid(
            f"{field} must be within a hundred years; send seconds", reason="DURATION_INVALID", field=field
        ) from None
    return found


def _invalid(field: str) -> Invalid:
    return Invalid(
        f"{field} must be a time within the years 2 to 9998; send what the clock says, in UTC",
        reason="TIME_INVALID",
        field=field,
    )
