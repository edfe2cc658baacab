"""Words of the hearts ⇄ numbers of the protos."""

from __future__ import annotations

from prunella.v1 import events_pb2, queue_pb2
from services.queue.leases import STATES as TASK_STATES
from services.queue.recurrence import STATES as REPORT_STATES
from services.queue.report import SEVERITIES

_SEVERITIES = {word: events_pb2.Severity.Value(f"SEVERITY_{word.upper()}") for word in SEVERITIES}
_TASK_STATES = {word: queue_pb2.TaskState.Value(f"TASK_STATE_{word.upper()}") for word in TASK_STATES}
_REPORT_STATES = {word: queue_pb2.ReportState.Value(f"REPORT_STATE_{word.upper()}") for word in REPORT_STATES}
_TASK_WORDS: dict[int, str] = {number: word for word, number in _TASK_STATES.items()}
_REPORT_WORDS: dict[int, str] = {number: word for word, number in _REPORT_STATES.items()}


def severity_number(word: str) -> events_pb2.Severity.ValueType:
    """The number of a severity; unspecified for an unknown word."""
    return _SEVERITIES.get(word, events_pb2.SEVERITY_UNSPECIFIED)


def milder_than(number: int) -> tuple[str, ...]:
    """The severities below one, and none at all; nothing when any will do."""
    if not number:
        return ()
    return ("", *(word for word in SEVERITIES if _SEVERITIES[word] < number))


def task_state_number(word: str) -> queue_pb2.TaskState.ValueType:
    """The number of a task's state."""
    return _TASK_STATES[word]


def task_state_word(number: int) -> str:
    """The word for a task's state; empty for any."""
    return _TASK_WORDS.get(number, "")


def report_state_number(word: str) -> queue_pb2.ReportState.ValueType:
    """The number of a report's state."""
    return _REPORT_STATES[word]


def report_state_word(number: int) -> str:
    """The word for a report's state; empty for any."""
    return _REPORT_WORDS.get(number, "")
