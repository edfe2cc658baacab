"""Names of states and severities ⇄ enum values of the protos, and what a list may be asked for.

Rule: a filter that nothing can fit, because it is no text or no number that we know, is refused and never ignored.
"""

from __future__ import annotations

from libs.common.errors import Invalid
from prunella.v1 import events_pb2, queue_pb2
from services.queue.leases import STATES as TASK_STATES
from services.queue.recurrence import STATES as REPORT_STATES
from services.queue.report import SEVERITIES

LONGEST_FILTER = 200
_SEVERITIES = {word: events_pb2.Severity.Value(f"SEVERITY_{word.upper()}") for word in SEVERITIES}
_TASK_STATES = {word: queue_pb2.TaskState.Value(f"TASK_STATE_{word.upper()}") for word in TASK_STATES}
_REPORT_STATES = {word: queue_pb2.ReportState.Value(f"REPORT_STATE_{word.upper()}") for word in REPORT_STATES}
_TASK_STATE_NAMES: dict[int, str] = {number: word for word, number in _TASK_STATES.items()}
_REPORT_STATE_NAMES: dict[int, str] = {number: word for word, number in _REPORT_STATES.items()}


def severity_value(word: str) -> events_pb2.Severity.ValueType:
    """The number of a severity; unspecified for an unknown word."""
    return _SEVERITIES.get(word, events_pb2.SEVERITY_UNSPECIFIED)


def below_severity(number: int) -> tuple[str, ...]:
    """The severities below one, and none at all; nothing when any will do. Raises Invalid for an unknown number."""
    if not number:
        return ()
    if number not in _SEVERITIES.values():
        raise _unknown("min_severity", number, SEVERITIES)
    return ("", *(word for word in SEVERITIES if _SEVERITIES[word] < number))


def task_state_value(word: str) -> queue_pb2.TaskState.ValueType:
    """The number of a task's state."""
    return _TASK_STATES[word]


def task_state_name(number: int) -> str:
    """The word for a task's state; empty for any. Raises Invalid for an unknown number."""
    if number and number not in _TASK_STATE_NAMES:
        raise _unknown("state", number, TASK_STATES)
    return _TASK_STATE_NAMES.get(number, "")


def report_state_value(word: str) -> queue_pb2.ReportState.ValueType:
    """The number of a report's state."""
    return _REPORT_STATES[word]


def report_state_name(number: int) -> str:
    """The word for a report's state; empty for any. Raises Invalid for an unknown number."""
    if number and number not in _REPORT_STATE_NAMES:
        raise _unknown("state", number, REPORT_STATES)
    return _REPORT_STATE_NAMES.get(number, "")


def filter_text(field: str, text: str) -> str:
    """A text that a list is asked for; empty for any. Raises Invalid for what nothing can be called."""
    if len(text) > LONGEST_FILTER or not text.isprintable():
        raise Invalid(
            f"{field} must be at most {LONGEST_FILTER} printable characters, or empty for any",
            reason="BAD_FILTER",
            field=field,
        )
    return text


def _unknown(field: str, number: int, words: tuple[str, ...]) -> Invalid:
    return Invalid(
        f"{field} must be the number of {', '.join(words)}, or 0 for any; it was {number}",
        reason="BAD_FILTER",
        field=field,
    )
