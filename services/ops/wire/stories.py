"""Stories ⇄ protobuf."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common import names
from prunella.v1 import events_pb2, stories_pb2
from prunella.v1.events_pb2 import Event
from services.ops import severity
from services.ops.decoded_fact import DecodedFact
from services.ops.stories import Story, StoryAttempt, summary
from services.ops.wire.facts import decoded_fact
from services.ops.wire.filters import timestamp

SAME = (
    "plugin", "label", "merchant", "package", "release", "type", "state", "symptom", "evidence", "figures", "rounds",
    "reopened",
    "outcome", "rollback_command", "attention_command", "assignee", "manual", "truncated",
)  # fmt: skip
SAME_IN_ATTEMPT = (
    "attempt", "decision", "action", "from_release", "to_release", "round", "confidence", "explanation", "staging",
    "verdict", "state", "outcome", "held_by", "actor", "rollback_command",
)  # fmt: skip


def facts(rows: Sequence[tuple[bytes, str]]) -> list[DecodedFact]:
    """Rows of the timeline as a story takes them: payload and label."""
    return [decoded_fact(Event.FromString(payload), label) for payload, label in rows]


def story(found: Story, *, steps: bool) -> stories_pb2.Story:
    """A story for people; its steps only when asked for."""
    made = stories_pb2.Story(
        name=names.incident(found.incident),
        severity=events_pb2.Severity.ValueType(severity.number(found.severity)),
        summary=summary(found),
        first_bad_beat_time=timestamp(found.first_bad_beat_time),
        open_time=timestamp(found.open_time),
        escalate_time=timestamp(found.escalate_time),
        end_time=timestamp(found.end_time),
        attempts=[_attempt(attempt) for attempt in found.attempts],
        **{name: getattr(found, name) for name in SAME},
    )
    if steps:
        for step in found.steps:
            made.steps.add(time=timestamp(step.time), fact=step.fact, line=step.line, event_id=step.id)
    return made


def _attempt(attempt: StoryAttempt) -> stories_pb2.StoryAttempt:
    return stories_pb2.StoryAttempt(
        create_time=timestamp(attempt.create_time),
        end_time=timestamp(attempt.end_time),
        **{name: getattr(attempt, name) for name in SAME_IN_ATTEMPT},
    )
