"""Headlines of error reports: triaged, worked on by tools, resolved or escalated.

Rule: what a plugin reported of its error stands in quotation marks: it is not our word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from services.ops.decoded_fact import DecodedFact
from services.ops.text import counted, quoted

QUOTED = 120
NAMED = 3
OUTCOMES = {"completed": "done", "retrying": "tried again later", "failed": "given up", "pending": "waiting again"}


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _reported(fact: DecodedFact) -> str:
    again = "an error came back after it was resolved" if fact.fields.get("regression") else "a new kind of error"
    return f"{fact.label}: {again}: {quoted(fact.text('message', 'without a message'), QUOTED)}"


def _triaged(fact: DecodedFact) -> str:
    line = f"{fact.label}: taken for {fact.text('type', 'nothing known')}, {fact.text('severity', 'no severity')}"
    sure = f", confidence {fact.number('confidence'):.2f} ({fact.text('origin', 'none')})"
    strategy = _short(fact.text("strategy", ""))
    return f"{line}{sure}{f' → {strategy}' if strategy else ''}"


def _created(fact: DecodedFact) -> str:
    return f"{fact.label}: work for tools, priority {fact.text('priority')}: {_short(fact.text('strategy'))}"


def _claimed(fact: DecodedFact) -> str:
    return f"{fact.text('worker', 'a worker')} took {counted(len(fact.fields.get('leases') or ()), 'task')}"


def _outcomes(fact: DecodedFact) -> str:
    """How many tries ended how, and why those that failed did."""
    ends: list[Mapping[str, Any]] = list(fact.fields.get("outcomes") or ())
    counts = Counter(str(end.get("state") or "ended") for end in ends)
    reasons = sorted({str(end["failure"]) for end in ends if end.get("failure")})
    line = ", ".join(f"{count} {OUTCOMES.get(word, word)}" for word, count in counts.items()) or "nothing"
    return line + (f" ({', '.join(reasons[:NAMED])}{', …' if len(reasons) > NAMED else ''})" if reasons else "")


def _resolved(fact: DecodedFact) -> str:
    method = _short(fact.text("method", fact.text("strategy", "tools")))
    seconds = fact.number("open_duration")
    took = f" after {seconds:.1f} s" if seconds < 90 else f" after {seconds / 60:.0f} min"
    return f"{fact.label}: resolved by {method}, verified{took if seconds else ''}"


def _escalated(fact: DecodedFact) -> str:
    tried = ", ".join(_short(str(name)) for name in fact.fields.get("tried_strategies") or ()) or "nothing"
    return fact.with_reason(f"{fact.label}: a person is asked about {fact.text('type', 'an error')} (tried {tried})")


def _strategy(fact: DecodedFact) -> str:
    name, before, after = _short(fact.text("strategy")), fact.text("from", "new"), fact.text("to", "the same")
    approved = ", may write" if fact.fields.get("approved") else ""
    change = f"{before} → {after}" if before != after else after
    return fact.with_reason(f"strategy {name}: {change}{approved}, confidence {fact.number('confidence'):.2f}")


def _proposed_action(fact: DecodedFact) -> str:
    return f"{fact.text('action', 'something')} of {fact.text('target', 'something')}"


def _decided(fact: DecodedFact) -> str:
    verb = "agrees to" if fact.fields.get("approved") else "refuses"
    return fact.with_reason(f"{fact.actor} {verb} {_proposed_action(fact)}")


HEADLINES: Mapping[str, Callable[[DecodedFact], str]] = {
    "error_reported": _reported,
    "report_triaged": _triaged,
    "task_created": _created,
    "tasks_claimed": _claimed,
    "tasks_finished": lambda fact: f"{fact.text('worker', 'a worker')}: {_outcomes(fact)}",
    "tasks_recovered": lambda fact: fact.with_reason(f"taken back: {_outcomes(fact)}"),
    "task_retried": lambda fact: fact.with_reason(f"{fact.label}: a person gives a task another try"),
    "task_cancelled": lambda fact: fact.with_reason(f"{fact.label}: a person takes a task out of the queue"),
    "tasks_cleaned_up": lambda fact: fact.with_reason(
        f"{fact.actor} has {counted(int(fact.number('tasks')), 'ended task')} deleted"
    ),
    "report_resolved": _resolved,
    "report_escalated": _escalated,
    "report_closed": lambda fact: fact.with_reason(f"{fact.label}: an error is closed by {fact.actor}"),
    "reports_merged": lambda fact: fact.with_reason(
        f"{fact.label}: {fact.actor} merges {counted(len(fact.fields.get('merged') or ()), 'error')} into another"
    ),
    "reports_split": lambda fact: fact.with_reason(
        f"{fact.label}: {fact.actor} splits {counted(len(fact.fields.get('split') or ()), 'error')} from another"
    ),
    "strategy_changed": _strategy,
    "proposal_created": lambda fact: fact.with_reason(f"{fact.actor} asks people to {_proposed_action(fact)}"),
    "proposal_decided": _decided,
}
