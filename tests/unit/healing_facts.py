"""Facts of healings as the services tell them, for tests of what ops makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from libs.common.facts import FIELDS
from prunella.v1 import events_pb2 as facts
from prunella.v1.events_pb2 import Event
from services.ops import wire
from services.ops.decoded_fact import DecodedFact

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PLUGIN = "01a1fe1e-9852-763d-8bbb-00000000f007"
INCIDENT = "01a1fe1e-9852-763d-8bbb-000000000001"
MERCHANT = "merchant-7"


def uid(number: int) -> str:
    """An id whose order is that of the numbers."""
    return f"01a1fe1e-9852-763d-8bbb-{number:012x}"


def event(number: int, message: Message, *, seconds: float | None = None, **fields: Any) -> Event:
    """One fact, `number` seconds after the start unless said otherwise."""
    made = Event(
        id=uid(number),
        source="test",
        actor=fields.pop("actor", "patcher"),
        reason=fields.pop("reason", "because"),
        plugin=fields.pop("plugin", PLUGIN),
        merchant=fields.pop("merchant", MERCHANT),
        incident=fields.pop("incident", INCIDENT),
    )
    assert not fields
    made.time.FromDatetime(START + timedelta(seconds=number if seconds is None else seconds))
    getattr(made, FIELDS[message.DESCRIPTOR.full_name]).CopyFrom(message)
    return made


def opened(number: int = 1, *, severity: int = facts.SEVERITY_MEDIUM, lag: float = 1.0, **fields: Any) -> Event:
    """An incident whose first bad beat came `lag` seconds before."""
    told = facts.IncidentOpened(
        type="webhook_fail_rate",
        severity=facts.Severity.ValueType(severity),
        round=1,
        package="checkout",
        release="1.2.0",
    )
    told.evidence.summary = "webhook_fail_rate 0.60 > 0.30 over 25 attempts"
    told.evidence.figures["webhook_fail_rate"] = 0.6
    made = event(number, told, reason=told.evidence.summary, **fields)
    begin = made.time.ToDatetime(UTC) - timedelta(seconds=lag)
    made.incident_opened.first_bad_beat_time.FromDatetime(begin)
    return made


def decided(number: int, decision: str = "d1", *, confidence: float = 0.87, round_: int = 1, **fields: Any) -> Event:
    """Patch to 1.2.3."""
    told = facts.DecisionMade(
        decision=decision,
        round=round_,
        action=facts.ACTION_PATCH,
        release="1.2.3",
        from_release="1.2.0",
        confidence=confidence,
        explanation="known fix",
        origin="playbook",
    )
    return event(number, told, **fields)


def created(number: int, attempt: str = "a1", decision: str = "d1", *, round_: int = 1, **fields: Any) -> Event:
    """An attempt began."""
    told = facts.AttemptCreated(
        attempt=attempt,
        decision=decision,
        action=facts.ACTION_PATCH,
        from_release="1.2.0",
        to_release="1.2.3",
        round=round_,
    )
    return event(number, told, **fields)


def staged(number: int, attempt: str = "a1", *, passed: bool = True, **fields: Any) -> Event:
    """Six of six tests, or two."""
    told = facts.AttemptStaged(attempt=attempt, passed=passed, tests_run=6, tests_passed=6 if passed else 2)
    told.duration.FromTimedelta(timedelta(seconds=1.5))
    return event(number, told, **fields)


def applied(number: int, attempt: str = "a1", **fields: Any) -> Event:
    """Probation began."""
    return event(number, facts.AttemptApplied(attempt=attempt, generation=1), **fields)


def verdict(result: str = "pass") -> facts.Verdict:
    """What was seen."""
    return facts.Verdict(
        result=result,
        beats=5,
        error_rate_before=0.6,
        error_rate_after=0.0 if result == "pass" else 0.9,
        explanation="seen",
    )


def succeeded(number: int, attempt: str = "a1", decision: str = "d1", **fields: Any) -> Event:
    """The agent wrote COMMITTED."""
    told = facts.AttemptSucceeded(
        attempt=attempt,
        decision=decision,
        action=facts.ACTION_PATCH,
        from_release="1.2.0",
        to_release="1.2.3",
        round=1,
        verdict=verdict(),
    )
    return event(number, told, **fields)


def rolled_back(number: int, attempt: str = "a1", decision: str = "d1", *, round_: int = 1, **fields: Any) -> Event:
    """The agent wrote REVERTED."""
    told = facts.AttemptRolledBack(
        attempt=attempt,
        decision=decision,
        action=facts.ACTION_PATCH,
        from_release="1.2.0",
        to_release="1.2.3",
        round=round_,
        failure="verdict",
    )
    return event(number, told, **fields)


def mitigated(number: int, attempt: str = "a1", **fields: Any) -> Event:
    """Healed."""
    return event(number, facts.IncidentMitigated(attempt=attempt, round=1), reason="verified healed", **fields)


def escalated(number: int, **fields: Any) -> Event:
    """A person is asked."""
    told = facts.IncidentEscalated(type="webhook_fail_rate", severity=facts.SEVERITY_MEDIUM, round=1)
    return event(number, told, reason="3 rounds did not help", **fields)


def closed(number: int, *, actor: str = "ingest", resolution: str = "healthy for 5 windows", **fields: Any) -> Event:
    """It ended without an attempt."""
    return event(number, facts.IncidentClosed(resolution=resolution), actor=actor, reason=resolution, **fields)


def healing() -> list[Event]:
    """The worked example, from the first bad beat to verified healed, in 9 s."""
    return [opened(1), decided(2), created(3), staged(5), applied(6), succeeded(10), mitigated(10 + 1, seconds=10)]


def decoded(events: list[Event], label: str = "shop-7") -> list[DecodedFact]:
    """As wire hands them to the heart."""
    return [wire.decoded_fact(one, label if one.plugin else "") for one in events]
