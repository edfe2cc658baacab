"""Headlines of the side road: an error report is understood, worked on by tools, and resolved or given to a person.

Rule: as on the rest of the timeline. What a plugin said of its error stands in quotation marks: it is not our word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.ops.timeline import Told

QUOTED = 120
NAMED = 3
ENDS = {"completed": "done", "retrying": "tried again later", "failed": "given up", "pending": "waiting again"}


def _because(told: Told, line: str) -> str:
    return f"{line} · {told.reason}" if told.reason else line


def _quoted(text: str) -> str:
    """One line of somebody else's text."""
    words = " ".join(text.split())
    return f"“{words if len(words) <= QUOTED else words[: QUOTED - 1] + '…'}”"


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _reported(told: Told) -> str:
    again = "an error came back after it was resolved" if told.fields.get("regression") else "a new kind of error"
    return f"{told.who}: {again}: {_quoted(told.text('message', 'without a message'))}"


def _triaged(told: Told) -> str:
    line = f"{told.who}: taken for {told.text('type', 'nothing known')}, {told.text('severity', 'no severity')}"
    sure = f", confidence {told.number('confidence'):.2f} ({told.text('origin', 'none')})"
    strategy = _short(told.text("strategy", ""))
    return f"{line}{sure}{f' → {strategy}' if strategy else ''}"


def _created(told: Told) -> str:
    return f"{told.who}: work for tools, priority {told.text('priority')}: {_short(told.text('strategy'))}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _claimed(told: Told) -> str:
    return f"{told.text('worker', 'a worker')} took {_count(len(told.fields.get('leases') or ()), 'task')}"


def _ends(told: Told) -> str:
    """How many tries ended how, and why those that failed did."""
    ends: list[Mapping[str, Any]] = list(told.fields.get("outcomes") or ())
    counts: dict[str, int] = {}
    for end in ends:
        word = str(end.get("state") or "ended")
        counts[word] = counts.get(word, 0) + 1
    why = sorted({str(end["failure"]) for end in ends if end.get("failure")})
    said = ", ".join(f"{count} {ENDS.get(word, word)}" for word, count in counts.items()) or "nothing"
    return said + (f" ({', '.join(why[:NAMED])}{', …' if len(why) > NAMED else ''})" if why else "")


def _resolved(told: Told) -> str:
    method = _short(told.text("method", told.text("strategy", "tools")))
    seconds = told.number("open_duration")
    took = f" after {seconds:.1f} s" if seconds < 90 else f" after {seconds / 60:.0f} min"
    return f"{told.who}: resolved by {method}, verified{took if seconds else ''}"


def _escalated(told: Told) -> str:
    tried = ", ".join(_short(str(name)) for name in told.fields.get("tried_strategies") or ()) or "nothing"
    return _because(told, f"{told.who}: a person is asked about {told.text('type', 'an error')} (tried {tried})")


def _strategy(told: Told) -> str:
    name, before, after = _short(told.text("strategy")), told.text("from", "new"), told.text("to", "the same")
    approved = ", may write" if told.fields.get("approved") else ""
    change = f"{before} → {after}" if before != after else after
    return _because(told, f"strategy {name}: {change}{approved}, confidence {told.number('confidence'):.2f}")


def _asked(told: Told) -> str:
    return f"{told.text('action', 'something')} of {told.text('target', 'something')}"


HEADLINES: Mapping[str, Callable[[Told], str]] = {
    "error_reported": _reported,
    "report_triaged": _triaged,
    "task_created": _created,
    "tasks_claimed": _claimed,
    "tasks_finished": lambda told: f"{told.text('worker', 'a worker')}: {_ends(told)}",
    "tasks_recovered": lambda told: _because(told, f"taken back: {_ends(told)}"),
    "task_retried": lambda told: _because(told, f"{told.who}: a person gives a task another try"),
    "task_cancelled": lambda told: _because(told, f"{told.who}: a person takes a task out of the queue"),
    "tasks_cleaned_up": lambda told: _because(
        told, f"{told.actor} has {_count(int(told.number('tasks')), 'ended task')} deleted"
    ),
    "report_resolved": _resolved,
    "report_escalated": _escalated,
    "report_closed": lambda told: _because(told, f"{told.who}: an error is closed by {told.actor}"),
    "strategy_changed": _strategy,
    "proposal_created": lambda told: _because(told, f"{told.actor} asks people to {_asked(told)}"),
    "proposal_decided": lambda told: _because(
        told, f"{told.actor} {'agrees to' if told.fields.get('approved') else 'refuses'} {_asked(told)}"
    ),
}
