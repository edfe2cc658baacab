"""Triage: what a report is, how bad, and whether a machine may work on it, down a ladder.

Rule: patterns → what was learned → a model → nobody. A rung decides when it is at least 0.7 sure; when none is, the
report goes to a person, with the surest guess for the order in which people look. Severity is the type's own (without
a type: critical for 5xx or the word CRITICAL, FATAL or PANIC, high from 400 on, low for a warning, else medium); the
reporter's word moves it by one step at most, because a reporter knows its plugin and we know the fleet. The text of a
report is matched and counted, never obeyed: it can make a report of one type or another, and nothing else. A model's
answer counts for a type, a severity, and a strategy of the book that fits that type; it never lets anything be written.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.queue.catalogue import Catalogue
from services.queue.classifier import Classifier, predict
from services.queue.report import SEVERITIES, Blocker, Origin, Report, Triage
from services.queue.strategies import BLOCKER_TEXT, Fit, fits

SURE = 0.7
# A model is never believed more than the patterns that people wrote.
MODEL_CAP = 0.89
UNKNOWN = "unknown"
LONGEST_QUOTE = 120

_STATUS = re.compile(r"\b(?:status|http|code)\W{0,3}([45]\d\d)\b", re.ASCII)
_ALARM = re.compile(r"\b(?:critical|fatal|panic)\b", re.ASCII)
_TEXT_FOR_SEVERITY = 2048


@dataclass(frozen=True)
class Opinion:
    """A model's answer, checked: a known type and severity, 0 ≤ confidence ≤ 1, a strategy of the book or nothing."""

    type: str
    severity: str
    confidence: float
    strategy: str = ""
    explanation: str = ""
    model: str = ""


@dataclass(frozen=True)
class _Classification:
    type: str
    severity: str
    confidence: float
    origin: Origin
    explanation: str
    strategy: str = ""


def classify(report: Report, catalogue: Catalogue, classifier: Classifier) -> Triage:
    """What patterns and what was learned say of a report, and the strategy to try first."""
    pattern = _by_pattern(report, catalogue)
    if pattern and pattern.confidence >= SURE:
        return _concluded(report, catalogue, pattern)
    by_classifier = _by_classifier(report, catalogue, classifier)
    if by_classifier and by_classifier.confidence >= SURE:
        return _concluded(report, catalogue, by_classifier)
    guesses = [guess for guess in (pattern, by_classifier) if guess]
    surest = max(guesses, key=lambda guess: guess.confidence, default=_nobody(report))
    return _concluded(report, catalogue, surest)


def unsure(triage: Triage) -> bool:
    """Whether one more opinion would help: no rung was sure enough."""
    return triage.blocker is Blocker.UNSURE


def with_opinion(report: Report, catalogue: Catalogue, before: Triage, opinion: Opinion | None, note: str) -> Triage:
    """The triage with a model's opinion, or without one; `note` says why there is none."""
    error_type = catalogue.error_type(opinion.type) if opinion else None
    if opinion is None or error_type is None or opinion.confidence < SURE:
        said = note or "the model is not sure either"
        if opinion and not note:
            said += f" ({opinion.confidence:.2f} for {opinion.type})"
        return replace(before, explanation=f"{before.explanation} {said[:1].upper()}{said[1:]}.")
    said = f": {quoted(opinion.explanation)}" if opinion.explanation else ""
    named = f" {quoted(opinion.model)}" if opinion.model else ""
    confidence = min(opinion.confidence, MODEL_CAP)
    explanation = f"The model{named} takes it for {opinion.type} ({confidence:.2f}){said}."
    # The model is one more reporter: its word moves the type's severity as theirs does, and only where they said none.
    severity = _moved(error_type.severity, report.severity or opinion.severity)
    guess = _Classification(opinion.type, severity, confidence, Origin.MODEL, explanation, opinion.strategy)
    return _concluded(report, catalogue, guess)


def ranked_fits(report: Report, catalogue: Catalogue, triage: Triage) -> tuple[Fit, ...]:
    """Every strategy that fits a report as it was understood, the one to choose first."""
    return fits(report, triage.type, catalogue.strategy_set, triage.origin)


def severity_of(report: Report) -> str:
    """How bad a report of no known type is by its own text, before the reporter's word."""
    text = f"{report.type[:200]}\n{report.message[:_TEXT_FOR_SEVERITY]}\n{_status(report)}".lower()
    statuses = [int(found) for found in _STATUS.findall(text)]
    if _ALARM.search(text) or any(status >= 500 for status in statuses):
        return "critical"
    if statuses:
        return "high"
    return "low" if report.type.lower().endswith("warning") or text.startswith("warning") else "medium"


def quoted(text: str, longest: int = LONGEST_QUOTE) -> str:
    """A stranger's text as a quotation: one line, printable, shortened."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * longest]).split())
    return f"“{line if len(line) <= longest else line[: longest - 1] + '…'}”"


def _status(report: Report) -> str:
    said = report.context.get("status", "")
    return f"status {said}" if said.isdecimal() and len(said) == 3 else ""


def _moved(own: str, reporters: str) -> str:
    """`own`, moved by one step towards the reporter's word when that is a severity."""
    if reporters not in SEVERITIES or own not in SEVERITIES:
        return own
    place, wanted = SEVERITIES.index(own), SEVERITIES.index(reporters)
    return SEVERITIES[place + (wanted > place) - (wanted < place)]


def _by_pattern(report: Report, catalogue: Catalogue) -> _Classification | None:
    match = catalogue.match(report)
    if match is None:
        return None
    sure = match.type_pattern.confidence
    explanation = (
        f"The {match.field} holds {quoted(match.found)}, which is {match.error_type.name} ({sure:.2f}, pattern)."
    )
    return _Classification(
        match.error_type.name, _moved(match.error_type.severity, report.severity), sure, Origin.PATTERN, explanation
    )


def _by_classifier(report: Report, catalogue: Catalogue, classifier: Classifier) -> _Classification | None:
    told = predict(classifier, report)
    error_type = catalogue.error_type(told.type) if told else None
    if told is None or error_type is None:
        return None
    terms = ", ".join(quoted(word, 40) for word in told.terms)
    basis = f"{told.confidence:.2f}, by {terms}"
    explanation = f"It reads like {told.examples} reports of {error_type.name} that were healed ({basis})."
    return _Classification(
        error_type.name, _moved(error_type.severity, report.severity), told.confidence, Origin.CLASSIFIER, explanation
    )


def _nobody(report: Report) -> _Classification:
    severity = _moved(severity_of(report), report.severity)
    return _Classification(
        UNKNOWN, severity, 0.0, Origin.NONE, "No pattern fits and nothing like it was healed before."
    )


def _concluded(report: Report, catalogue: Catalogue, guess: _Classification) -> Triage:
    found = fits(report, guess.type, catalogue.strategy_set, guess.origin)
    fit = _chosen(found, guess.strategy)
    blocker = Blocker.UNSURE if guess.confidence < SURE else (fit.blocker if fit else Blocker.NO_STRATEGY)
    if fit is None:
        chosen = f"No strategy fits {guess.type}."
    elif blocker is None:
        chosen = f"{fit.strategy.name} is tried: {fit.explanation}."
    else:
        chosen = f"{fit.strategy.name} would fit: {fit.explanation}."
    if blocker is Blocker.UNSURE:
        chosen += f" A person is asked, because {BLOCKER_TEXT[blocker]}."
    elif blocker:
        chosen += " A person is asked."
    strategy = fit.strategy if fit else None
    return Triage(
        type=guess.type,
        severity=guess.severity,
        auto_fixable=strategy is not None and strategy.auto_fixable,
        confidence=guess.confidence,
        origin=guess.origin,
        tools=strategy.tools if strategy else (),
        estimated_seconds=strategy.estimated_seconds if strategy else 0.0,
        explanation=f"{guess.explanation} {chosen}",
        strategy=strategy.name if strategy else "",
        blocker=blocker,
    )


def _chosen(found: Sequence[Fit], wanted: str) -> Fit | None:
    """The best fit; a wanted one goes before others that can be worked, never before its own hindrance."""
    for fit in found:
        if fit.strategy.name == wanted and fit.blocker is None:
            return fit
    return found[0] if found else None
