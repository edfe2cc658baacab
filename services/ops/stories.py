"""One story per incident: what broke, what we saw, what we tried and why, how it ended, how to undo it, who is asked.

Rule: a story is made from the facts that name the incident, and from nothing else. Facts are put in the order of their
times first, and one that comes twice counts once, so whatever order they arrived in, the story is the same. What no
fact told stays empty; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.ops.states import ATTEMPT, FINAL, SEVERITIES, SWITCHED, by_hand
from services.ops.timeline import Told, headline

LONGEST = 400  # facts one story is made from
SPOKEN = {
    "awaiting_approval": "waiting for approval",
    "applying": "being applied",
    "probation": "in probation",
    "committing": "being committed",
    "rolling_back": "being taken back",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A fact of a story: its id and time, and what it told."""

    id: str
    at: datetime
    told: Told
    plugin: str = ""
    merchant: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One step of the way, in a line for people."""

    id: str
    at: datetime
    fact: str
    text: str


@dataclass(slots=True)
class Try:
    """One attempt: what, why, how it was proven, what was seen, and how it ended."""

    attempt: str
    action: str = ""
    from_release: str = ""
    to_release: str = ""
    round: int = 0
    decision: str = ""
    confidence: float | None = None
    why: str = ""
    staging: str = ""
    verdict: str = ""
    state: str = ""
    outcome: str = ""
    held_by: str = ""
    by: str = ""
    began: datetime | None = None
    ended: datetime | None = None
    undo: str = ""


@dataclass(slots=True)
class Story:
    """What happened around one incident. `undo` and `needed` are lines to type with what they are for."""

    incident: str
    plugin: str = ""
    merchant: str = ""
    who: str = ""
    package: str = ""
    release: str = ""
    type: str = ""
    severity: str = ""
    state: str = "open"
    broke: str = ""
    seen: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    first_bad: datetime | None = None
    opened: datetime | None = None
    escalated: datetime | None = None
    ended: datetime | None = None
    rounds: int = 0
    tries: list[Try] = field(default_factory=list)
    ending: str = ""
    healed_by: str = ""
    undo: str = ""
    needed: str = ""
    assignee: str = ""
    manual: bool = False
    lines: list[Line] = field(default_factory=list)
    cut: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in {"mitigated", "closed"}


def tell(incident: str, moments: Iterable[Moment], most: int = LONGEST) -> Story:
    """The story of an incident, from its facts in any order and any number of times; at most `most` were read."""
    ordered = sorted({moment.id: moment for moment in moments}.values(), key=lambda moment: (moment.at, moment.id))
    story = Story(incident, cut=len(ordered) >= most)
    tries: dict[str, Try] = {}
    decisions: dict[str, Told] = {}
    ranks: dict[str, tuple[datetime, int]] = {}
    for moment in ordered:
        told = moment.told
        story.lines.append(Line(moment.id, moment.at, told.fact, headline(told)))
        story.plugin = story.plugin or moment.plugin
        story.merchant = story.merchant or moment.merchant
        story.who = told.who if moment.plugin else story.who
        story.manual = story.manual or by_hand(told.fact, told.actor)
        if told.fact == "decision_made":
            decisions[told.text("decision", "")] = told
            story.rounds = max(story.rounds, int(told.number("round")))
        _incident(story, moment)
        name = _attempt_of(told)
        if name:
            _attempt(tries.setdefault(name, Try(name)), moment, ranks)
    story.tries = sorted(tries.values(), key=lambda one: (one.round, one.attempt))
    for one in story.tries:
        _explain(one, decisions.get(one.decision))
    _conclude(story, decisions)
    return story


def summary(story: Story) -> str:
    """The story in one line."""
    what = f"{story.who or 'a plugin'}: {story.type or 'an incident'}"
    what += f" ({story.severity})" if story.severity else ""
    return f"{what} · {story.ending}" if story.ending else what


def _attempt_of(told: Told) -> str:
    if told.fact.startswith("approval_"):
        collection, _, name = told.text("subject", "").partition("/")
        return name if collection == "attempts" else ""
    return told.text("attempt", "") if told.fact in ATTEMPT else ""


def _incident(story: Story, moment: Moment) -> None:
    told = moment.told
    if told.fact in {"incident_opened", "incident_round_started", "incident_escalated"}:
        story.type = told.text("type", story.type)
        story.severity = max(story.severity, told.text("severity", ""), key=_weight)
        story.rounds = max(story.rounds, int(told.number("round")))
    match told.fact:
        case "incident_opened":
            story.opened = moment.at
            story.first_bad = told.fields.get("first_bad_beat_time")
            story.package, story.release = told.text("package", ""), told.text("release", "")
            evidence = told.part("evidence")
            story.seen = str(evidence.get("summary") or told.reason)
            story.figures = dict(evidence.get("figures") or {})
            story.broke = " ".join(filter(None, (told.who, "broke:", story.type, story.severity)))
        case "incident_escalated":
            story.escalated = story.escalated or moment.at
            story.state = "escalated" if not story.over else story.state
            story.ending = f"a person is asked: {told.reason}" if not story.over else story.ending
        case "incident_mitigated":
            story.state, story.ended = "mitigated", moment.at
            story.healed_by = told.text("attempt", "")
        case "incident_closed":
            story.state, story.ended = "closed", moment.at
            by = f" by {told.actor}" if told.actor.startswith("operators/") else ""
            story.ending = f"closed{by}: {told.text('resolution', told.reason)}"
        case "incident_assigned":
            story.assignee = told.text("assignee", "")
        case _:
            pass


def _attempt(one: Try, moment: Moment, ranks: dict[str, tuple[datetime, int]]) -> None:
    told = moment.told
    for name in ("action", "from_release", "to_release", "decision"):
        if not getattr(one, name):
            setattr(one, name, told.text(name, "") if not told.fact.startswith("approval_") else "")
    one.round = one.round or int(told.number("round"))
    if told.fact == "attempt_created":
        one.began, one.by = moment.at, told.actor
    if told.fact == "attempt_staged":
        one.staging = _staging(told)
    if told.part("verdict"):
        one.verdict = _verdict(told.part("verdict"))
    state, rank = ATTEMPT.get(told.fact, ("", 0))
    if state and (moment.at, rank) >= ranks.get(one.attempt, (moment.at, 0)):
        ranks[one.attempt] = (moment.at, rank)
        one.state = state
        one.held_by = told.text("gate", "") if told.fact in {"attempt_held", "apply_denied"} else ""
        one.ended = moment.at if state in FINAL else None
        one.outcome = told.reason


def _staging(told: Told) -> str:
    tests = f"{int(told.number('tests_passed'))}/{int(told.number('tests_run'))} tests passed"
    if not told.fields.get("passed"):
        failures = "; ".join(str(text) for text in told.fields.get("failures") or ()) or told.reason
        return f"refused, {tests}: {failures}"
    return f"{tests} {'earlier' if told.fields.get('cached') else f'''in {told.number('duration'):.1f} s'''}"


def _verdict(verdict: Mapping[str, Any]) -> str:
    before, after = verdict.get("error_rate_before") or 0.0, verdict.get("error_rate_after") or 0.0
    said = f"{verdict.get('result') or 'unknown'}: error rate {before:.0%} → {after:.0%}"
    return " · ".join(filter(None, (f"{said} over {verdict.get('beats') or 0} beats", verdict.get("explanation"))))


def _explain(one: Try, decision: Told | None) -> None:
    if decision is not None:
        one.why = decision.text("explanation", decision.reason)
        one.confidence = decision.number("confidence")
        one.action = one.action or decision.text("action", "")
        one.to_release = one.to_release or decision.text("release", "")
    if one.state in SWITCHED and one.state != "unconfirmed":
        one.undo = f'prunella rollback {one.attempt} --reason "…"'


def change(action: str, source: str, target: str) -> str:
    """What an attempt does, such as `patch 1.2.0 → 1.2.3`."""
    action = action or "a remedy"
    if not target or target == source:
        return action
    return f"{action} {source} → {target}" if source else f"{action} → {target}"


def spoken(state: str, held_by: str) -> str:
    """Where an attempt stands, such as `in probation` or `staged, waiting for STORM`."""
    word = SPOKEN.get(state, state.replace("_", " "))
    return f"{word}, waiting for {held_by}" if held_by else word


def _does(one: Try) -> str:
    return change(one.action, one.from_release, one.to_release)


def _conclude(story: Story, decisions: Mapping[str, Told]) -> None:
    live = [one for one in story.tries if one.state not in FINAL]
    if story.state == "open" and live:
        story.state = "in_progress"
    if story.state == "mitigated":
        healer = next((one for one in story.tries if one.attempt == story.healed_by), None)
        took = f" in {_span((story.ended - story.opened).total_seconds())}" if story.ended and story.opened else ""
        story.ending = f"healed{took} by {_does(healer)}" if healer else f"healed{took}"
        if healer and healer.state == "rolled_back":
            story.ending += ", taken back later"
    elif story.state == "in_progress":
        story.ending = f"{_does(live[-1])} is {spoken(live[-1].state, live[-1].held_by)}"
    elif story.state == "open":
        story.ending = "a remedy is looked for" if not decisions else "the next remedy is looked for"
    story.undo = next((one.undo for one in reversed(story.tries) if one.undo), "")
    story.needed = _needed(story)


def _weight(severity: str) -> int:
    """It only rises, whatever order it is told in."""
    return SEVERITIES.index(severity) + 1 if severity in SEVERITIES else 0


def _needed(story: Story) -> str:
    for one in reversed(story.tries):
        if one.state == "awaiting_approval":
            return f'prunella approve {one.attempt} --reason "…"'
        if one.state in {"unconfirmed", "rollback_failed"} and not story.over:
            return f"prunella attempts show {one.attempt}"
    if story.state == "escalated":
        return f'prunella incidents close {story.incident} --reason "…"'
    return ""


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
