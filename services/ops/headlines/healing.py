"""Headlines of a healing: a plugin breaks, a remedy is decided, staged, applied and watched, and the incident ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from services.ops.decoded_fact import DecodedFact, display_name
from services.ops.text import duration, times


def _change(fact: DecodedFact) -> str:
    """What the remedy does, such as `patch 1.2.0 → 1.2.3`."""
    action, source = fact.text("action", "remedy"), fact.text("from_release", "")
    target = fact.text("to_release", fact.text("release", ""))
    if not target or target == source:
        return action
    return f"{action} {source} → {target}" if source else f"{action} to {target}"


def _health(fact: DecodedFact) -> str:
    before = fact.text("from", "unspecified").replace("unspecified", "unknown")
    return f"{fact.label} is {fact.text('to')} (was {before}), runs {fact.text('release', 'nothing')}"


def _opened(fact: DecodedFact) -> str:
    evidence = fact.message("evidence").get("summary") or fact.reason
    package = " ".join(filter(None, (fact.text("package", ""), fact.text("release", ""))))
    where = f"{fact.label} ({package})" if package else fact.label
    return f"{where} broke: {fact.text('type')}, {fact.text('severity')} · {evidence}"


def _round(fact: DecodedFact) -> str:
    tried = [_tried(entry) for entry in fact.fields.get("tried") or ()]
    already = f", without {', '.join(tried)}" if tried else ""
    return f"{fact.label}: round {fact.text('round')} for {fact.text('type')}{already}"


def _tried(entry: Mapping[str, Any]) -> str:
    remedy = " ".join(filter(None, (entry.get("action"), entry.get("release"))))
    return f"{remedy} ({entry['outcome']})" if entry.get("outcome") else remedy


def _decided(fact: DecodedFact) -> str:
    explanation = fact.text("explanation", fact.reason)
    if "confidence" in explanation:
        return f"{fact.label}: decided {explanation} ({fact.text('origin')})"
    sure = f"{fact.number('confidence'):.2f}"
    return f"{fact.label}: decided {_change(fact)}, confidence {sure} ({fact.text('origin')}) · {explanation}"


def _staged(fact: DecodedFact) -> str:
    tests = f"{int(fact.number('tests_passed'))}/{int(fact.number('tests_run'))} tests"
    if fact.fields.get("passed"):
        took = "from an earlier run" if fact.fields.get("cached") else f"in {fact.number('duration'):.1f} s"
        return f"{fact.label}: staged {tests} passed {took}"
    failures = "; ".join(fact.fields.get("failures") or ()) or fact.reason
    return f"{fact.label}: staging refused it, {tests} passed · {failures}"


def _finished(fact: DecodedFact) -> str:
    detail = fact.text("detail", "")
    line = f"{fact.label}: the agent says {fact.text('outcome')} to {fact.text('kind')}"
    if fact.text("outcome") == "expired":
        line = f"{fact.label}: no word from the agent on {fact.text('kind')} before its deadline"
    runs = fact.text("release", "")
    return line + (f", runs {runs}" if runs else "") + (f" · {detail}" if detail else "")


def _verdict(fact: DecodedFact) -> str:
    verdict = fact.message("verdict")
    if not verdict:
        return fact.reason
    before, after = verdict.get("error_rate_before") or 0.0, verdict.get("error_rate_after") or 0.0
    figures = f"error rate {before:.0%} → {after:.0%} over {verdict.get('beats') or 0} beats"
    return " · ".join(filter(None, (figures, verdict.get("explanation"))))


def _good(fact: DecodedFact) -> str:
    return "nothing against it" if fact.message("verdict").get("low_evidence") else "good"


def _succeeded(fact: DecodedFact) -> str:
    low = " · evidence=low, watched until there is proof" if fact.message("verdict").get("low_evidence") else ""
    return f"{fact.label}: {_change(fact)} succeeded · {_verdict(fact)}{low}"


WATCH_ENDS = {
    "proven": "holds, by evidence that came after its commit",
    "worse": "turned out worse after its commit",
    "unproven": "was watched after its commit, and no proof came",
    "superseded": "is not watched any more",
}


def _watch_ended(fact: DecodedFact) -> str:
    outcome = fact.text("outcome", "")
    line = f"{fact.label}: {_change(fact)} {WATCH_ENDS.get(outcome, outcome)}"
    return fact.with_reason(f"{line}, it is taken back" if fact.text("rollback", "") else line)


def _rolled_back(fact: DecodedFact) -> str:
    alone = ", by the agent alone" if fact.fields.get("dead_man") else ""
    return fact.with_reason(
        f"{fact.label}: taken back{alone}, {fact.text('from_release', 'the release before')} runs again"
    )


def _escalated(fact: DecodedFact) -> str:
    tried = ", ".join(_tried(entry) for entry in fact.fields.get("tried") or ()) or "nothing"
    return fact.with_reason(f"{fact.label}: a person is asked about {fact.text('type')} (tried {tried})")


def _reopened(fact: DecodedFact) -> str:
    evidence = fact.message("evidence").get("summary") or fact.reason
    how = ", flapping" if fact.fields.get("flapping") else ""
    line = f"{fact.label}: {fact.text('type')} came back, {times(fact.number('reopened'))} by now{how} · {evidence}"
    return line + (" · the remedy that had healed it is held against it" if fact.text("recurred_attempt", "") else "")


def _mitigated(fact: DecodedFact) -> str:
    return f"{fact.label}: healed in {duration(fact.number('open_duration'))} · {fact.reason}"


def _enrolled(fact: DecodedFact) -> str:
    joined = f"{fact.label} joined with {fact.text('package')} {fact.text('release', '')}".rstrip()
    replaces = fact.text("replaces", "")
    return f"{joined}, in place of {display_name('', replaces)}" if replaces else joined


HEADLINES: Mapping[str, Callable[[DecodedFact], str]] = {
    # A plugin's life.
    "plugin_enrolled": _enrolled,
    "plugin_health_changed": _health,
    "plugin_quarantined": lambda fact: fact.with_reason(f"{fact.label} is shut out: two agents use its identity"),
    "quarantine_released": lambda fact: fact.with_reason(f"{fact.label} is let in again by {fact.actor}"),
    "plugin_retired": lambda fact: fact.with_reason(f"{fact.label} left the fleet"),
    # Something broke; a remedy was chosen.
    "incident_opened": _opened,
    "incident_round_started": _round,
    "decision_made": _decided,
    # It is proven, permitted and applied.
    "attempt_created": lambda fact: f"{fact.label}: attempt to {_change(fact)} began",
    "attempt_refused": lambda fact: fact.with_reason(f"{fact.label}: {_change(fact)} refused by {fact.text('gate')}"),
    "attempt_held": lambda fact: fact.with_reason(f"{fact.label}: waits for {fact.text('gate')}, nothing applied"),
    "attempt_staged": _staged,
    "command_issued": lambda fact: (
        f"{fact.label}: command {fact.text('kind')} written (generation {fact.text('generation', '0')})"
    ),
    "command_finished": _finished,
    "apply_authorized": lambda fact: f"{fact.label}: the switch is permitted",
    "apply_denied": lambda fact: fact.with_reason(f"{fact.label}: the switch is denied by {fact.text('gate')}"),
    "attempt_applied": lambda fact: f"{fact.label}: applied, watching generation {fact.text('generation', '0')}",
    # It is watched, and kept or taken back.
    "attempt_committing": lambda fact: f"{fact.label}: {_good(fact)}, committing · {_verdict(fact)}",
    "attempt_succeeded": _succeeded,
    "attempt_watch_ended": _watch_ended,
    "attempt_rolling_back": lambda fact: f"{fact.label}: taking it back · {_verdict(fact)}",
    "attempt_rolled_back": _rolled_back,
    "attempt_rollback_failed": lambda fact: fact.with_reason(
        f"{fact.label}: could not be taken back from {fact.text('to_release', 'the new release')}; needs a person"
    ),
    "attempt_unconfirmed": lambda fact: fact.with_reason(
        f"{fact.label}: permitted, and the agent's final word never came; needs a person"
    ),
    "attempt_failed": lambda fact: fact.with_reason(f"{fact.label}: {_change(fact)} failed ({fact.text('failure')})"),
    "attempt_cancelled": lambda fact: fact.with_reason(f"{fact.label}: attempt cancelled, nothing applied"),
    # The incident ends, or a person takes over.
    "incident_mitigated": _mitigated,
    "incident_closed": lambda fact: fact.with_reason(f"{fact.label}: incident closed ({fact.text('resolution')})"),
    "incident_escalated": _escalated,
    "incident_reopened": _reopened,
}
