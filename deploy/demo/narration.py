"""Tells what happens to the fleet's plugins, one line for each step, as it happens.

Rule: only facts are narrated; figures are those of the facts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.demo.fleet import Fleet
from prunella.v1.events_pb2 import Event

LONGEST = 130


def short(text: str) -> str:
    """A reason that fits a line."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"


def staged(event: Event) -> str:
    """How the sandbox run went."""
    fields = event.attempt_staged
    seconds = fields.duration.ToTimedelta().total_seconds()
    tests = f"{fields.tests_passed}/{fields.tests_run}"
    if fields.passed:
        return f"staged {tests} in {seconds:.1f} s{' (cached)' if fields.cached else ''}"
    return short(f"staging failed {tests}: {'; '.join(fields.failures)}")


def mitigated(event: Event) -> str:
    """The good end."""
    return f"healed in {event.incident_mitigated.open_duration.ToTimedelta().total_seconds():.1f} s"


def triaged(event: Event) -> str:
    """What an error was taken for, and what is done about it."""
    fields = event.report_triaged
    line = f"taken for {fields.type}, confidence {fields.confidence:.2f} ({fields.origin})"
    strategy = fields.strategy.rpartition("/")[2]
    return f"{line}; tools try {strategy}" if strategy and fields.auto_fixable else f"{line}; not for tools"


def tries(event: Event) -> list[tuple[str, str]]:
    """The plugin of each task that did not end well, and why."""
    return [
        (one.report, f"tools failed ({one.failure}), {'given up' if one.state == 'failed' else 'again later'}")
        for one in event.tasks_finished.outcomes
        if one.state != "completed"
    ]


def rollout_line(fields: Any, text: str) -> str:
    """How a rollout goes."""
    return short(f"{fields.package} {fields.target}: {text}")


LINES: dict[str, Callable[[Event], str]] = {
    "incident_opened": lambda e: f"broke: {e.incident_opened.evidence.summary or e.incident_opened.type}",
    "decision_made": lambda e: short(f"decided: {e.decision_made.explanation}"),
    "attempt_staged": staged,
    "attempt_held": lambda e: f"waits, nothing applied: {e.attempt_held.gate}",
    "attempt_refused": lambda e: short(f"refused by {e.attempt_refused.gate}: {e.reason}"),
    "attempt_applied": lambda e: f"applied as generation {e.attempt_applied.generation}, watching",
    "attempt_committing": lambda e: short(f"verified: {e.attempt_committing.verdict.explanation}"),
    "attempt_rolling_back": lambda e: short(
        f"taking it back: {e.attempt_rolling_back.verdict.explanation or e.reason}"
    ),
    "attempt_rolled_back": lambda e: (
        f"{e.attempt_rolled_back.from_release} runs again"
        + (": the agent went back by itself" if e.attempt_rolled_back.dead_man else "")
    ),
    "attempt_failed": lambda e: short(f"{e.attempt_failed.failure}: {e.reason}"),
    "attempt_unconfirmed": lambda e: short(f"unconfirmed, a person is asked: {e.reason}"),
    "incident_round_started": lambda e: f"tries something else (round {e.incident_round_started.round})",
    "incident_reopened": lambda e: short(f"broke again: {e.incident_reopened.evidence.summary}"),
    "incident_mitigated": mitigated,
    "incident_closed": lambda e: f"closed: {e.incident_closed.resolution}",
    "incident_escalated": lambda e: short(f"a person is asked: {e.reason}"),
    "error_reported": lambda e: short(
        f"reports an error{' again' if e.error_reported.regression else ''}: {e.error_reported.message}"
    ),
    "report_triaged": triaged,
    "report_resolved": lambda e: (
        f"healed by tools in {e.report_resolved.open_duration.ToTimedelta().total_seconds():.1f} s, nobody was asked"
    ),
    "report_escalated": lambda e: short(f"a person gets the error: {e.reason}"),
    "storm_started": lambda e: short(f"storm, automation waits: {e.reason}"),
    "storm_ended": lambda e: short(f"storm over: {e.reason}"),
    "rollout_wave_started": lambda e: (
        f"{e.rollout_wave_started.package} {e.rollout_wave_started.target}: wave {e.rollout_wave_started.wave} begins"
    ),
    "rollout_wave_passed": lambda e: rollout_line(e.rollout_wave_passed, e.reason),
    "rollout_paused": lambda e: rollout_line(e.rollout_paused, e.reason),
    "rollout_halted": lambda e: rollout_line(e.rollout_halted, f"halted: {e.reason}"),
    "rollout_rolled_back": lambda e: rollout_line(e.rollout_rolled_back, e.reason),
    "rollout_succeeded": lambda e: rollout_line(e.rollout_succeeded, f"reached everybody: {e.reason}"),
    "kill_switch_engaged": lambda e: f"kill switch engaged: {e.kill_switch_engaged.scope}",
    "kill_switch_released": lambda e: f"kill switch released: {e.kill_switch_released.scope}",
}


class Narrator:
    """Turns facts into lines, with the plugin's label in front."""

    def __init__(self, fleet: Fleet, say: Callable[[str], None]) -> None:
        self._fleet, self._say = fleet, say
        self._labels: dict[str, str] = {}
        self._reports: dict[str, str] = {}

    def narrate(self, name: str, event: Event) -> None:
        """Prints what this fact means, if anything."""
        if name == "error_reported":
            self._reports[event.error_reported.report] = event.plugin
        for report, text in tries(event):
            if label := self.label(self._reports.get(report, "unknown")):
                self._say(f"  {label:<8} {text}")
        line = LINES.get(name)
        label = self.label(event.plugin)
        if line and label:
            self._say(f"  {label:<8} {line(event)}")

    def label(self, plugin: str) -> str:
        """The label of one of the fleet's real plugins; empty for others."""
        if plugin and plugin not in self._labels:
            self._labels |= {shop.plugin: shop.label for shop in self._fleet.shops.values() if shop.plugin}
        return self._labels.get(plugin, "" if plugin else "plane")
