"""The timeline: every fact in one line that a person understands without knowing the protos.

Rule: a headline says what happened to whom, in plain words, with the figures that decided it. Every fact of
`events.proto` has one; a fact told by a newer build falls back to its reason, so nothing is ever left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.ops import messages, reins, side_road


@dataclass(frozen=True, slots=True)
class Told:
    """A fact as it was told: its name, its fields in plain Python (enums as lower-case words, durations in seconds)."""

    fact: str
    who: str
    reason: str
    actor: str
    fields: Mapping[str, Any]

    def text(self, name: str, otherwise: str = "?") -> str:
        """A field as text; `otherwise` when it is empty."""
        value = self.fields.get(name)
        return otherwise if value in (None, "", 0) else str(value)

    def number(self, name: str) -> float:
        """A field as a number; 0 when it is empty."""
        return float(self.fields.get(name) or 0)

    def part(self, name: str) -> Mapping[str, Any]:
        """A field that is a message; empty when it is not set."""
        return self.fields.get(name) or {}


@dataclass(frozen=True, slots=True)
class Entry:
    """A placed row of the timeline; `label` is what people call its plugin, empty when unknown."""

    position: int
    fact: str
    payload: bytes
    trace: str
    label: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of the timeline; empty fields match all."""

    plugin: str = ""
    incident: str = ""
    facts: tuple[str, ...] = ()


def headline(told: Told) -> str:
    """One line for people, at most 300 characters."""
    say = HEADLINES.get(told.fact)
    line = say(told) if say else f"{told.fact.replace('_', ' ')} · {told.reason}"
    return line if len(line) <= 300 else line[:299] + "…"


def _because(told: Told, line: str) -> str:
    return f"{line} · {told.reason}" if told.reason else line


def _change(told: Told) -> str:
    """What the remedy does, such as `patch 1.2.0 → 1.2.3`."""
    action, source = told.text("action", "remedy"), told.text("from_release", "")
    target = told.text("to_release", told.text("release", ""))
    if not target or target == source:
        return action
    return f"{action} {source} → {target}" if source else f"{action} to {target}"


def _health(told: Told) -> str:
    before = told.text("from", "unspecified").replace("unspecified", "unknown")
    return f"{told.who} is {told.text('to')} (was {before}), runs {told.text('release', 'nothing')}"


def _opened(told: Told) -> str:
    evidence = told.part("evidence").get("summary") or told.reason
    package = " ".join(filter(None, (told.text("package", ""), told.text("release", ""))))
    where = f"{told.who} ({package})" if package else told.who
    return f"{where} broke: {told.text('type')}, {told.text('severity')} · {evidence}"


def _round(told: Told) -> str:
    tried = [_tried(entry) for entry in told.fields.get("tried") or ()]
    already = f", without {', '.join(tried)}" if tried else ""
    return f"{told.who}: round {told.text('round')} for {told.text('type')}{already}"


def _tried(entry: Mapping[str, Any]) -> str:
    remedy = " ".join(filter(None, (entry.get("action"), entry.get("release"))))
    return f"{remedy} ({entry['outcome']})" if entry.get("outcome") else remedy


def _decided(told: Told) -> str:
    explanation = told.text("explanation", told.reason)
    if "confidence" in explanation:
        return f"{told.who}: decided {explanation} ({told.text('origin')})"
    sure = f"{told.number('confidence'):.2f}"
    return f"{told.who}: decided {_change(told)}, confidence {sure} ({told.text('origin')}) · {explanation}"


def _staged(told: Told) -> str:
    tests = f"{int(told.number('tests_passed'))}/{int(told.number('tests_run'))} tests"
    if told.fields.get("passed"):
        took = "from an earlier run" if told.fields.get("cached") else f"in {told.number('duration'):.1f} s"
        return f"{told.who}: staged {tests} passed {took}"
    failures = "; ".join(told.fields.get("failures") or ()) or told.reason
    return f"{told.who}: staging refused it, {tests} passed · {failures}"


def _finished(told: Told) -> str:
    detail = told.text("detail", "")
    line = f"{told.who}: the agent says {told.text('outcome')} to {told.text('kind')}"
    if told.text("outcome") == "expired":
        line = f"{told.who}: no word from the agent on {told.text('kind')} before its deadline"
    runs = told.text("release", "")
    return line + (f", runs {runs}" if runs else "") + (f" · {detail}" if detail else "")


def _verdict(told: Told) -> str:
    verdict = told.part("verdict")
    if not verdict:
        return told.reason
    before, after = verdict.get("error_rate_before") or 0.0, verdict.get("error_rate_after") or 0.0
    figures = f"error rate {before:.0%} → {after:.0%} over {verdict.get('beats') or 0} beats"
    return " · ".join(filter(None, (figures, verdict.get("explanation"))))


def _rolled_back(told: Told) -> str:
    alone = ", by the agent alone" if told.fields.get("dead_man") else ""
    return _because(
        told, f"{told.who}: taken back{alone}, {told.text('from_release', 'the release before')} runs again"
    )


def _escalated(told: Told) -> str:
    tried = ", ".join(_tried(entry) for entry in told.fields.get("tried") or ()) or "nothing"
    return _because(told, f"{told.who}: a person is asked about {told.text('type')} (tried {tried})")


def _mitigated(told: Told) -> str:
    return f"{told.who}: healed in {_span(told.number('open_duration'))} · {told.reason}"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


HEADLINES: Mapping[str, Callable[[Told], str]] = {
    # A plugin's life.
    "plugin_enrolled": lambda told: (
        f"{told.who} joined with {told.text('package')} {told.text('release', '')}".rstrip()
    ),
    "plugin_health_changed": _health,
    "plugin_quarantined": lambda told: _because(told, f"{told.who} is shut out: two agents use its identity"),
    "plugin_retired": lambda told: _because(told, f"{told.who} left the fleet"),
    # Something broke; a remedy was chosen.
    "incident_opened": _opened,
    "incident_round_started": _round,
    "decision_made": _decided,
    # It is proven, permitted and applied.
    "attempt_created": lambda told: f"{told.who}: attempt to {_change(told)} began",
    "attempt_refused": lambda told: _because(told, f"{told.who}: {_change(told)} refused by {told.text('gate')}"),
    "attempt_held": lambda told: _because(told, f"{told.who}: waits for {told.text('gate')}, nothing applied"),
    "attempt_staged": _staged,
    "command_issued": lambda told: (
        f"{told.who}: command {told.text('kind')} written (generation {told.text('generation', '0')})"
    ),
    "command_finished": _finished,
    "apply_authorized": lambda told: f"{told.who}: the switch is permitted",
    "apply_denied": lambda told: _because(told, f"{told.who}: the switch is denied by {told.text('gate')}"),
    "attempt_applied": lambda told: f"{told.who}: applied, watching generation {told.text('generation', '0')}",
    # It is watched, and kept or taken back.
    "attempt_committing": lambda told: f"{told.who}: good, committing · {_verdict(told)}",
    "attempt_succeeded": lambda told: f"{told.who}: {_change(told)} succeeded · {_verdict(told)}",
    "attempt_rolling_back": lambda told: f"{told.who}: taking it back · {_verdict(told)}",
    "attempt_rolled_back": _rolled_back,
    "attempt_rollback_failed": lambda told: _because(
        told, f"{told.who}: could not be taken back from {told.text('to_release', 'the new release')}; needs a person"
    ),
    "attempt_unconfirmed": lambda told: _because(
        told, f"{told.who}: permitted, and the agent's final word never came; needs a person"
    ),
    "attempt_failed": lambda told: _because(told, f"{told.who}: {_change(told)} failed ({told.text('failure')})"),
    "attempt_cancelled": lambda told: _because(told, f"{told.who}: attempt cancelled, nothing applied"),
    # The incident ends, or a person takes over.
    "incident_mitigated": _mitigated,
    "incident_closed": lambda told: _because(told, f"{told.who}: incident closed ({told.text('resolution')})"),
    "incident_escalated": _escalated,
    # What people and the plane itself do.
    "kill_switch_engaged": lambda told: _because(told, f"kill switch engaged for {told.text('scope')} by {told.actor}"),
    "kill_switch_released": lambda told: _because(
        told, f"kill switch released for {told.text('scope')} by {told.actor}"
    ),
    "policy_changed": lambda told: _because(
        told, f"policy changed by {told.actor}: {', '.join(told.fields.get('fields') or ()) or 'nothing'}"
    ),
    "release_published": lambda told: f"{told.text('package')} {told.text('version')} published by {told.actor}",
    "breaker_changed": lambda told: _because(
        told, f"breaker {told.text('breaker')}: {told.text('from', 'new')} → {told.text('to')}"
    ),
    # Errors, and the tools that work on them.
    **side_road.HEADLINES,
    # People hold the reins.
    **reins.HEADLINES,
    # The word to people.
    **messages.HEADLINES,
}
