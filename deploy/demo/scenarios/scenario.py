"""What a scenario works with, and what it hands back.

Rule: a scenario says beforehand how it must end. What happened is read from the facts, in their order;
times are the facts' own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from deploy.demo import loss_checks
from deploy.demo.fleet import Fleet
from deploy.demo.operator_client import OperatorClient
from deploy.demo.queue_workers import QueueWorkers
from deploy.demo.timeline_follower import TimelineFollower
from libs.common.facts import fact_name
from prunella.v1.events_pb2 import Event

STORY_SECONDS = 15.0
ENDS = ("incident_mitigated", "incident_closed", "incident_escalated")


class Breakable(Protocol):
    """A plane whose services can be taken down and let run again."""

    @property
    def database_url(self) -> str: ...

    async def hold(self, service: str) -> None: ...

    async def release(self, service: str) -> None: ...


class Mismatch(Exception):  # noqa: N818 - says what it means
    """The plane did something that the scenario forbids; the text says what."""


@dataclass
class Context:
    """What every scenario is given: the plane, its fleet, the facts. `say` prints one line of narration."""

    plane: Breakable
    client: OperatorClient
    fleet: Fleet
    timeline: TimelineFollower
    workers: QueueWorkers
    say: Callable[[str], None]


@dataclass
class Result:
    """What a scenario saw. `fault` is when it broke something; `error`, `rollout`, `storm` are ids of what it caused.

    The plugin is `modelled` when it is a simulated agent: no process of its own, so no spans.
    """

    plugin: str = ""
    incident: str = ""
    error: str = ""
    rollout: str = ""
    storm: str = ""
    modelled: bool = False
    fault: datetime | None = None
    traced: bool = True
    notes: list[str] = field(default_factory=list)


Play = Callable[[Context, Result], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """A fault, how long its story may take, and how it must end. Those of one lane play one after the other."""

    name: str
    label: str
    expected: str
    play: Play
    seconds: float = 120.0
    lane: str = ""


def now() -> datetime:
    """Wall time, as facts have it."""
    return datetime.fromtimestamp(time.time(), UTC)


async def wait_for_delivery(ctx: Context, where: Callable[[Event], bool]) -> None:
    """Waits until every such fact that was written so far has arrived: an end may arrive before what led to it.

    Raises TimeoutError.
    """
    await ctx.timeline.wait_for_all(await loss_checks.recorded(ctx.plane.database_url, where), STORY_SECONDS)


OUTCOMES = {
    "attempt_held": "held",
    "attempt_cancelled": "cancelled",
    "attempt_rollback_failed": "rollback_failed",
    "attempt_unconfirmed": "unconfirmed",
    "attempt_succeeded": "success",
    "incident_mitigated": "mitigated",
    "incident_closed": "closed",
    "incident_escalated": "a person is asked",
}


def outcome_part(event: Event) -> str:
    """What a fact adds to the outcome; empty for facts that are only on the way to one."""
    name = fact_name(event)
    if name == "attempt_failed":
        return event.attempt_failed.failure or "failed"
    if name == "attempt_refused":
        return f"refused {event.attempt_refused.gate}"
    if name == "attempt_rolled_back":
        return "rolled_back by the agent" if event.attempt_rolled_back.dead_man else "rolled_back"
    return OUTCOMES.get(name, "")


def outcome(events: list[Event]) -> str:
    """The story of an incident in a few words, such as `rolled_back, success, mitigated`."""
    ordered = sorted(events, key=lambda event: event.time.ToNanoseconds())
    return ", ".join(filter(None, map(outcome_part, ordered)))


def seconds(first: datetime | None, last: datetime | None) -> float | None:
    """From one fact_time to another; None when one of them never came."""
    return None if first is None or last is None else round((last - first).total_seconds(), 3)


def fact_time(event: Event | None) -> datetime | None:
    """The time of a fact."""
    return event.time.ToDatetime(UTC) if event is not None else None


def entry(scenario: Scenario, result: Result, outcome: str, **fields: Any) -> dict[str, Any]:
    """The scenario's entry in the JSON document; what `fields` do not name is empty."""
    return {
        "name": scenario.name,
        "plugin": scenario.label,
        "incident": result.incident,
        "decision": None,
        "attempt": "",
        "outcome": outcome,
        "expected": scenario.expected,
        "ok": outcome == scenario.expected and (fields.get("trace_complete", True) or not result.traced),
        **dict.fromkeys(("detect_s", "decide_s", "act_s", "verify_s", "total_s")),
        "trace_id": "",
        "trace_complete": False,
        "notes": result.notes,
        **fields,
    }


def decision(action: str, release: str, confidence: float) -> dict[str, Any]:
    """What was decided, as an entry shows it."""
    return {"action": action, "release": release, "confidence": round(confidence, 3)}
