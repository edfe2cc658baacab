"""Triage: what a report is, how bad, and whether a machine may work on it, down a ladder.

Rule: patterns → classifier → model → nobody. A rung decides when it is at least 0.7 sure; when none is, the report is
escalated, with the surest guess for the order in which operators look. Severity is the type's own (without a type:
critical for 5xx or the words CRITICAL, FATAL and PANIC, high from 400 on, low for a warning, else medium); the severity
a reporter gave moves it by one step at most, because a reporter knows its plugin and we know the fleet. The text of a
report is matched and counted, never obeyed: it can make a report of one type or another, and nothing else. A model's
answer counts for a type, a severity, and a strategy of the catalogue that fits that type; it never lets anything be
written.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.queue.catalogue import Catalogue
from services.queue.classifier import Classifier, predict
from services.queue.report import SEVERITIES, Blocker, Origin, Report, Triage
from services.queue.strategies import BLOCKER_TEXT, Fit, fits

MIN_CONFIDENCE = 0.7
# A model is never believed more than the patterns that people wrote.
MODEL_CAP = 0.89
UNKNOWN = "unknown"
LONGEST_QUOTE = 120

_STATUS = re.compile(r"\b(?:status|http|code)\W{0,3}([45]\d\d)\b", re.ASCII)
_ALARM = re.compile(r"\b(?:critical|fatal|panic)\b", re.ASCII)
MOST_SEVERITY_TEXT = 2048


@dataclass(frozen=True)
class Opinion:
    """A model's answer, checked: a known type and severity, 0 ≤ confidence ≤ 1, a known strategy or none."""

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
    """What patterns and the classifier make of a report, and the strategy to try first."""
    pattern = _by_pattern(report, catalogue)
    if pattern and pattern.confidence >= MIN_CONFIDENCE:
        return _concluded(report, catalogue, pattern)
    by_classifier = _by_classifier(report, catalogue, classifier)
    if by_classifier and by_classifier.confidence >= MIN_CONFIDENCE:
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
    if opinion is None or error_type is None or opinion.confidence < MIN_CONFIDENCE:
        guess = f" ({opinion.confidence:.2f} for {opinion.type})" if opinion else ""
        note = note or f"the model is not sure either{guess}"
        return replace(before, explanation=f"{before.explanation} {note[:1].upper()}{note[1:]}.")
    basis = f": {quoted(opinion.explanation)}" if opinion.explanation else ""
    named = f" {quoted(opinion.model)}" if opinion.model else ""
    confidence = min(opinion.confidence, MODEL_CAP)
    explanation = f"The model{named} takes it for {opinion.type} ({confidence:.2f}){basis}."
    # The model is one more reporter: its severity moves the type's as theirs does, and only where they gave none.
    severity = _shifted(error_type.severity, report.severity or opinion.severity)
    by_model = _Classification(opinion.type, severity, confidence, Origin.MODEL, explanation, opinion.strategy)
    return _concluded(report, catalogue, by_model)


def ranked_fits(report: Report, catalogue: Catalogue, triage: Triage) -> tuple[Fit, ...]:
    """Every strategy that fits a report as it was understood, the one to choose first."""
    return fits(report, triage.type, catalogue.strategy_set, triage.origin)


def severity_of(report: Report) -> str:
    """How bad a report of no known type is by its own text, before the reporter's own."""
    text = f"{report.type[:200]}\n{report.message[:MOST_SEVERITY_TEXT]}\n{_status(report)}".lower()
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
    status = report.context.get("status", "")
    return f"status {status}" if status.isdecimal() and len(status) == 3 else ""


def _shifted(own: str, reporters: str) -> str:
    """`own`, moved by one step towards the reporter's when that is a severity."""
    if reporters not in SEVERITIES or own not in SEVERITIES:
        return own
    place, wanted = SEVERITIES.index(own), SEVERITIES.index(reporters)
    return SEVERITIES[place + (wanted > place) - (wanted < place)]


def _by_pattern(report: Report, catalogue: Catalogue) -> _Classification | None:
    match = catalogue.match(report)
    if match is None:
        return None
    name, sure = match.error_type.name, match.type_pattern.confidence
    explanation = f"The {match.field} holds {quoted(match.found)}, which is {name} ({sure:.2f}, pattern)."
    severity = _shifted(match.error_type.severity, report.severity)
    return _Classification(name, severity, sure, Origin.PATTERN, explanation)


def _by_classifier(report: Report, catalogue: Catalogue, classifier: Classifier) -> _Classification | None:
    prediction = predict(classifier, report)
    error_type = catalogue.error_type(prediction.type) if prediction else None
    if prediction is None or error_type is None:
        return None
    terms = ", ".join(quoted(term, 40) for term in prediction.terms)
    basis = f"{prediction.confidence:.2f}, by {terms}"
    explanation = f"It reads like {prediction.examples} reports of {error_type.name} that were healed ({basis})."
    severity = _shifted(error_type.severity, report.severity)
    return _Classification(error_type.name, severity, prediction.confidence, Origin.CLASSIFIER, explanation)


def _nobody(report: Report) -> _Classification:
    severity = _shifted(severity_of(report), report.severity)
    return _Classification(
        UNKNOWN, severity, 0.0, Origin.NONE, "No pattern fits and nothing like it was healed before."
    )


def _concluded(report: Report, catalogue: Catalogue, guess: _Classification) -> Triage:
    found = fits(report, guess.type, catalogue.strategy_set, guess.origin)
    fit = _chosen(found, guess.strategy)
    blocker = Blocker.UNSURE if guess.confidence < MIN_CONFIDENCE else (fit.blocker if fit else Blocker.NO_STRATEGY)
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
    """The best fit; a wanted one goes before others that can be worked, never before its own blocker."""
    for fit in found:
        if fit.strategy.name == wanted and fit.blocker is None:
            return fit
    return found[0] if found else None
