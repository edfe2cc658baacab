"""Times, durations and enums, in protobuf and in Python."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from prunella.v1 import agent_pb2, events_pb2
from services.patcher.policy import Action, Severity

ACTIONS = {
    Action.PATCH: events_pb2.ACTION_PATCH,
    Action.CONFIG_FIX: events_pb2.ACTION_CONFIG_FIX,
    Action.ROLLBACK: events_pb2.ACTION_ROLLBACK,
    Action.RESTART: events_pb2.ACTION_RESTART,
}
ACTIVE = {number: action for action, number in ACTIONS.items()}
KINDS = {
    "update": agent_pb2.COMMAND_KIND_UPDATE,
    "rollback": agent_pb2.COMMAND_KIND_ROLLBACK,
    "restart": agent_pb2.COMMAND_KIND_RESTART,
    "health_check": agent_pb2.COMMAND_KIND_HEALTH_CHECK,
    "commit": agent_pb2.COMMAND_KIND_COMMIT,
    "config_update": agent_pb2.COMMAND_KIND_CONFIG_UPDATE,
}
HEALTH = {
    agent_pb2.HEALTH_HEALTHY: "healthy",
    agent_pb2.HEALTH_UNHEALTHY: "unhealthy",
    agent_pb2.HEALTH_DOWN: "down",
    agent_pb2.HEALTH_STARTING: "starting",
}


def timestamp(time: datetime | None) -> Timestamp | None:
    """A moment as callers see it."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def duration(seconds: float) -> Duration:
    """A length of time as callers see it."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def time_of(message: Timestamp) -> datetime:
    """A told moment, aware."""
    return message.ToDatetime(UTC)


def severity(message: int) -> Severity:
    """A severity; unknown numbers are UNKNOWN and pass no cap."""
    return Severity(message) if message in set(Severity) else Severity.UNKNOWN
