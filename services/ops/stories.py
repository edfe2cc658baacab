"""One story per incident: the symptom, the evidence, what was tried and why, the outcome, and how to roll it back.

Rule: a story is made from the facts that name the incident, and from nothing else. Facts are put in the order of their
times first, and one that comes twice counts once, so whatever order they arrived in, the story is the same. What no
fact says stays empty; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.ops import severity
from services.ops.attempt_states import FINAL, STATE_OF, SWITCHED, progress, remedy, staging, verdict
from services.ops.decoded_fact import DecodedFact
from services.ops.headlines import headline
from services.ops.interventions import OPERATORS, is_intervention
from services.ops.text import duration, times

LONGEST: Final = 400  # facts one story is made from
INCIDENT_STATES: Final = ("open", "in_progress", "escalated", "flapping", "mitigated", "closed")


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One fact of a story, in a line for people."""

    id: str
    time: datetime
    fact: str
    line: str


@dataclass(slots=True)
class StoryAttempt:
    """One attempt: what, why, how it was staged, what probation showed, and its outcome."""

    attempt: str
    action: str = ""
    from_release: str = ""
    to_release: str = ""
    round: int = 0
    decision: str = ""
    confidence: float | None = None
    explanation: str = ""
    staging: str = ""
    verdict: str = ""
    state: str = ""
    outcome: str = ""
    held_by: str = ""
    actor: str = ""
    create_time: datetime | None = None
    end_time: datetime | None = None
    rollback_command: str = ""


@dataclass(slots=True)
class Story:
    """What happened around one incident. `rollback_command` and `attention_command` are lines to type."""

    incident: str
    plugin: str = ""
    merchant: str = ""
    label: str = ""
    package: str = ""
    release: str = ""
    type: str = ""
    severity: str = ""
    state: str = "open"
    symptom: str = ""
    evidence: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    first_bad_beat_time: datetime | None = None
    open_time: datetime | None = None
    escalate_time: datetime | None = None
    end_time: datetime | None = None
    rounds: int = 0
    reopened: int = 0
    attempts: list[StoryAttempt] = field(default_factory=list)
    outcome: str = ""
    healed_by: str = ""
    rollback_command: str = ""
    attention_command: str = ""
    assignee: str = ""
    manual: bool = False
    steps: list[StoryStep] = field(default_factory=list)
    truncated: bool = False

    @property
    def ended(self) -> bool:
        """Whether its incident is over."""
        return self.state in {"mitigated", "closed"}


def story(incident: str, facts: Iterable[DecodedFact], most: int = LONGEST) -> Story:
    """The story of an incident, from its facts in any order and any number of times; at most `most` were read."""
    ordered = sorted({fact.id: fact for fact in facts}.values(), key=lambda fact: (fact.time, fact.id))
    made = Story(incident, truncated=len(ordered) >= most)
    attempts: dict[str, StoryAttempt] = {}
    decisions: dict[str, DecodedFact] = {}
    ranks: dict[str, tuple[datetime, int]] = {}
    for fact in ordered:
        made.steps.append(StoryStep(fact.id, fact.time, fact.name, headline(fact)))
        made.plugin = made.plugin or fact.plugin
        made.merchant = made.merchant or fact.merchant
        made.label = fact.label if fact.plugin else made.label
        made.manual = made.manual or is_intervention(fact)
        if fact.name == "decision_made":
            decisions[fact.text("decision", "")] = fact
            made.rounds = max(made.rounds, int(fact.number("round")))
        _add_to_incident(made, fact)
        if fact.attempt and (fact.name in STATE_OF or fact.name.startswith("approval_")):
            _add_to_attempt(attempts.setdefault(fact.attempt, StoryAttempt(fact.attempt)), fact, ranks)
    made.attempts = sorted(attempts.values(), key=lambda attempt: (attempt.round, attempt.attempt))
    for attempt in made.attempts:
        _explain(attempt, decisions.get(attempt.decision))
    _conclude(made, decisions)
    return made


def summary(found: Story) -> str:
    """The story in one line."""
    what = f"{found.label or 'a plugin'}: {found.type or 'an incident'}"
    what += f" ({found.severity})" if found.severity else ""
    return f"{what} · {found.outcome}" if found.outcome else what


def _add_to_incident(made: Story, fact: DecodedFact) -> None:
    if fact.name in {"incident_opened", "incident_round_started", "incident_escalated", "incident_reopened"}:
        made.type = fact.text("type", made.type)
        # It only rises, whatever order the facts come in.
        made.severity = max(made.severity, fact.text("severity", ""), key=severity.number)
        made.rounds = max(made.rounds, int(fact.number("round")))
    match fact.name:
        case "incident_opened":
            made.open_time = fact.time
            made.first_bad_beat_time = fact.fields.get("first_bad_beat_time")
            made.package, made.release = fact.text("package", ""), fact.text("release", "")
            evidence = fact.message("evidence")
            made.evidence = str(evidence.get("summary") or fact.reason)
            made.figures = dict(evidence.get("figures") or {})
            made.symptom = " ".join(filter(None, (fact.label, "broke:", made.type, made.severity)))
        case "incident_escalated":
            made.escalate_time = made.escalate_time or fact.time
            if not made.ended:
                made.outcome = f"a person is asked: {fact.reason}"
                made.state = made.state if made.state == "flapping" else "escalated"
        case "incident_reopened":
            _reopen(made, fact)
        case "incident_mitigated":
            made.state, made.end_time = "mitigated", fact.time
            made.healed_by = fact.text("attempt", "")
        case "incident_closed":
            made.state, made.end_time = "closed", fact.time
            by = f" by {fact.actor}" if fact.actor.startswith(OPERATORS) else ""
            made.outcome = f"closed{by}: {fact.text('resolution', fact.reason)}"
        case "incident_assigned":
            made.assignee = fact.text("assignee", "")
        case _:
            pass


def _reopen(made: Story, fact: DecodedFact) -> None:
    made.reopened = max(made.reopened, int(fact.number("reopened")))
    made.end_time, made.healed_by = None, ""
    flapping, asked = bool(fact.fields.get("flapping")), bool(fact.fields.get("escalated"))
    made.state = "flapping" if flapping else "escalated" if asked else "open"
    made.outcome = f"came back {times(made.reopened)}" + (", a person is in charge" if asked else "")


def _add_to_attempt(attempt: StoryAttempt, fact: DecodedFact, ranks: dict[str, tuple[datetime, int]]) -> None:
    if not fact.name.startswith("approval_"):
        for name in ("action", "from_release", "to_release", "decision"):
            setattr(attempt, name, getattr(attempt, name) or fact.text(name, ""))
    attempt.round = attempt.round or int(fact.number("round"))
    if fact.name == "attempt_created":
        attempt.create_time, attempt.actor = fact.time, fact.actor
    if fact.name == "attempt_staged":
        attempt.staging = staging(fact)
    if fact.message("verdict"):
        attempt.verdict = verdict(fact.message("verdict"))
    state, rank = STATE_OF.get(fact.name, ("", 0))
    if state and (fact.time, rank) >= ranks.get(attempt.attempt, (fact.time, 0)):
        ranks[attempt.attempt] = (fact.time, rank)
        attempt.state = state
        attempt.held_by = fact.text("gate", "") if fact.name in {"attempt_held", "apply_denied"} else ""
        attempt.end_time = fact.time if state in FINAL else None
        attempt.outcome = fact.reason


def _explain(attempt: StoryAttempt, decision: DecodedFact | None) -> None:
    if decision is not None:
        attempt.explanation = decision.text("explanation", decision.reason)
        attempt.confidence = decision.number("confidence")
        attempt.action = attempt.action or decision.text("action", "")
        attempt.to_release = attempt.to_release or decision.text("release", "")
    if attempt.state in SWITCHED and attempt.state != "unconfirmed":
        attempt.rollback_command = f'prunella rollback {attempt.attempt} --reason "…"'


def _remedy(attempt: StoryAttempt) -> str:
    return remedy(attempt.action, attempt.from_release, attempt.to_release)


def _conclude(made: Story, decisions: Mapping[str, DecodedFact]) -> None:
    live = [attempt for attempt in made.attempts if attempt.state not in FINAL]
    if made.state == "open" and live:
        made.state = "in_progress"
    if made.state == "mitigated":
        healer = next((attempt for attempt in made.attempts if attempt.attempt == made.healed_by), None)
        took = ""
        if made.end_time and made.open_time:
            took = f" in {duration((made.end_time - made.open_time).total_seconds())}"
        made.outcome = f"healed{took} by {_remedy(healer)}" if healer else f"healed{took}"
        if healer and healer.state == "rolled_back":
            made.outcome += ", taken back later"
    elif made.state == "in_progress":
        made.outcome = f"{_remedy(live[-1])} is {progress(live[-1].state, live[-1].held_by)}"
    elif made.state == "open":
        made.outcome = "a remedy is looked for" if not decisions else "the next remedy is looked for"
    if made.reopened and made.ended:
        made.outcome += f", after it came back {times(made.reopened)}"
    commands = (attempt.rollback_command for attempt in reversed(made.attempts))
    made.rollback_command = next(filter(None, commands), "")
    made.attention_command = _attention_command(made)


def _attention_command(made: Story) -> str:
    for attempt in reversed(made.attempts):
        if attempt.state == "awaiting_approval":
            return f'prunella approve {attempt.attempt} --reason "…"'
        if attempt.state in {"unconfirmed", "rollback_failed"} and not made.ended:
            return f"prunella attempts show {attempt.attempt}"
    if made.state in {"escalated", "flapping"}:
        return f'prunella incidents close {made.incident} --reason "…"'
    return ""
