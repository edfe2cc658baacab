"""Figures of a window as people read them. Pure: what is absent is a dash, never a zero."""

from __future__ import annotations

from typing import Any

from cli import formatting

NO_DATA = "no data"


def ratio(found: Any) -> str:
    """A share in percent with what it is made of, such as `96.0 %  (48 of 50)`."""
    if not found.HasField("value"):
        return NO_DATA
    return f"{formatting.percent(found.value)}  ({found.numerator} of {found.denominator})"


def seconds(found: Any, field: str) -> str:
    """One figure of durations."""
    return formatting.duration(getattr(found, field)) if found.HasField(field) else NO_DATA


def durations(found: Any) -> str:
    """How durations are spread in one line."""
    if not found.cases:
        return NO_DATA
    spread = ", ".join(f"{name} {seconds(found, f'{name}_seconds')}" for name in ("p50", "p95"))
    return f"{seconds(found, 'mean_seconds')}  ({spread}, {found.cases} of them)"


def target(found: Any) -> str:
    """The target of a figure and whether it is reached; empty without a target."""
    if hasattr(found, "target_seconds"):
        return _met(found, f"< {formatting.duration(found.target_seconds)}") if found.HasField("target_seconds") else ""
    if not found.HasField("target"):
        return ""
    return _met(found, f"{'>' if found.exceed else '<'} {formatting.percent(found.target)}")


def _met(found: Any, text: str) -> str:
    return f"{text} {'reached' if found.met else 'missed'}" if found.HasField("met") else text


def optional_number(found: Any, field: str, form: str = "{:.2f}") -> str:
    """A figure that may be absent."""
    return form.format(getattr(found, field)) if found.HasField(field) else NO_DATA


def counts(found: Any) -> str:
    """Counts by word, the largest first."""
    parts = sorted(((count, label) for label, count in found.items() if count), key=lambda one: (-one[0], one[1]))
    return ", ".join(f"{count} {label.replace('_', ' ')}" for count, label in parts) or "none"


def rows(answer: Any) -> list[tuple[str, str, str]]:
    """Every figure with its value and its target."""
    return [
        ("autopatch success", ratio(answer.success), target(answer.success)),
        ("rollback", ratio(answer.rollback), target(answer.rollback)),
        ("time to detect", durations(answer.time_to_detect), target(answer.time_to_detect)),
        ("time to repair", durations(answer.time_to_repair), target(answer.time_to_repair)),
        ("resolved without people", ratio(answer.automatic_resolution), ""),
        ("manual interventions", str(answer.manual_interventions), counts(answer.manual_by_fact)),
        ("incidents by severity", counts(answer.incidents_by_severity), ""),
        ("incidents by type", counts(answer.incidents_by_type), ""),
        ("incidents ended", counts(answer.incidents_ended), ""),
        ("attempts ended", counts(answer.attempts), ""),
        ("calibration error", optional_number(answer, "calibration_error"), "predicted against observed"),
        ("error reports", _reports(answer.queue), ""),
        ("tries of tasks", _tries(answer.queue), ""),
        ("fleet", _fleet(answer), ""),
        ("uptime", _uptime(answer), ""),
    ]


def _reports(queue: Any) -> str:
    if not (queue.reports or queue.resolved or queue.escalated):
        return NO_DATA
    mean = f", in {seconds(queue, 'mean_resolution_seconds')}" if queue.HasField("mean_resolution_seconds") else ""
    return f"{queue.reports} reported, {queue.resolved} resolved{mean}, {queue.escalated} escalated"


def _tries(queue: Any) -> str:
    if not queue.HasField("tries_completed"):
        return NO_DATA
    total = queue.tries_completed + queue.tries_retrying + queue.tries_failed
    parts = f"{queue.tries_completed} done, {queue.tries_retrying} tried again, {queue.tries_failed} failed"
    return parts if total else NO_DATA


def _fleet(answer: Any) -> str:
    if not answer.HasField("fleet"):
        return NO_DATA
    return f"{answer.fleet.plugins} plugins, {answer.fleet.connected} connected; {counts(answer.fleet.by_health)}"


def _uptime(answer: Any) -> str:
    parts = [
        f"{one.service} {one.ratio * 100:.2f} %" if one.HasField("ratio") else f"{one.service} {NO_DATA}"
        for one in answer.uptime
    ]
    if not parts:
        return NO_DATA
    covered = min(one.covered for one in answer.uptime)
    return ", ".join(parts) + (
        f"  (probes cover {formatting.percent(covered)} of the window)" if covered < 0.995 else ""
    )
