"""Escalation: what happens to a message when nobody acknowledges it.

Rule: a message goes to the channels of its route's first step. Who acknowledges it ends the matter, and so does the end
of every incident it is about. When the step's time passes without that, or every channel of the step has failed, the
next step is notified; behind the last one nobody is left, which is recorded once. A message that is not critical
escalates in the morning, not in quiet hours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.ops.notify import summaries
from services.ops.notify.batching import Batch
from services.ops.notify.defaults import ABOUT_INCIDENTS
from services.ops.notify.model import EscalationStep, QuietHours, Route
from services.ops.notify.quiet_hours import quiet_until


class State(StrEnum):
    """Of a message and of each of its deliveries; only messages become acknowledged."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    SUPPRESSED = "suppressed"
    ACKNOWLEDGED = "acknowledged"


# Nothing more happens to a delivery in one of these.
ENDED = frozenset({State.SENT, State.FAILED, State.SUPPRESSED})
# A message in one of these may still need somebody.
OPEN = frozenset({State.SENDING, State.SENT, State.FAILED})
# These concern nothing but an incident, so a flood of them need not be shown whole to be known.
INCIDENT_ONLY = ABOUT_INCIDENTS | {summaries.KIND}


@dataclass(frozen=True, slots=True)
class NextStep:
    """The step to notify next (None: nobody is left), its number, and until when somebody may acknowledge."""

    number: int
    step: EscalationStep | None
    act_by_time: datetime | None


def first(route: Route, now: datetime, kinds: Collection[str] = ()) -> NextStep | None:
    """The first step for a message of such facts; None for a route without steps, whose messages are only recorded.

    Nobody has to answer a message of summaries alone.
    """
    if not route.steps:
        return None
    step = _next_step(route, 0, now)
    return replace(step, act_by_time=None) if set(kinds) == {summaries.KIND} else step


def following(route: Route, number: int, now: datetime) -> NextStep:
    """What comes after step `number` went unanswered."""
    return _next_step(route, number + 1, now) if number + 1 < len(route.steps) else NextStep(number + 1, None, None)


def overdue(act_by_time: datetime | None, hours: Iterable[QuietHours], now: datetime, *, urgent: bool) -> bool:
    """Whether the next step's turn has come."""
    if act_by_time is None or now < act_by_time:
        return False
    return urgent or quiet_until(hours, now) == now


def incidents_ended(batch: Batch, incidents: Sequence[str], ended: Mapping[str, datetime], *, named: int) -> bool:
    """Whether everything a message tells of was about incidents that have ended since.

    `incidents` are those of the message, whole while there are fewer than `named`; `ended` says when each ended.
    """
    if batch.facts == len(batch.lines):
        return bool(batch.lines) and all(
            line.incident in ended and ended[line.incident] > line.time for line in batch.lines
        )
    return set(batch.kinds) <= INCIDENT_ONLY and 0 < len(incidents) < named and all(name in ended for name in incidents)


def state(deliveries: Iterable[State]) -> State:
    """A message's state by those of its deliveries: under way while one is, and sent once any channel took it."""
    known = set(deliveries)
    if known - ENDED:
        return State.SENDING
    for word in (State.SENT, State.FAILED):
        if word in known:
            return word
    return State.SUPPRESSED


def step_failed(step_states: Iterable[State]) -> bool:
    """Whether a step has failed on all its channels, so that waiting for an answer to it is idle."""
    known = set(step_states)
    return bool(known) and known <= {State.FAILED}


def _next_step(route: Route, number: int, now: datetime) -> NextStep:
    step = route.steps[number]
    return NextStep(number, step, now + step.acknowledge_within if step.acknowledge_within > timedelta(0) else None)
