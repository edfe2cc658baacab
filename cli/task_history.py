"""What was tried on an error report, line by line, as `errors show` and `queue show` print it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cli import formatting
from cli.output import safe, show_table

STEPS = 3


def show_task_history(entries: Iterable[Any]) -> None:
    """A table of what was tried, oldest first."""
    now = datetime.now(UTC)
    columns = ("when", "?by", "?strategy", "outcome", "?took", "what happened")
    show_table(columns, (_row(entry, now) for entry in entries), empty="nothing was tried yet")


def _row(entry: Any, now: datetime) -> tuple[str, ...]:
    outcome = entry.outcome or ("done" if entry.success else "failed")
    return (
        formatting.ago(entry.create_time, now),
        safe(entry.worker or entry.actor or formatting.NO_VALUE),
        safe(entry.strategy.rpartition("/")[2] or formatting.NO_VALUE),
        f"[green]{safe(outcome)}[/]" if entry.success else f"[red]{safe(outcome)}[/]",
        formatting.proto_duration(entry.duration),
        safe(summary(entry)),
    )


def summary(entry: Any) -> str:
    """The gist of an entry's details: what each step and the check said; the tools when there is nothing better."""
    try:
        details = json.loads(entry.details or "{}")
    except ValueError:
        return str(entry.details)
    if not isinstance(details, dict):
        return str(details)
    parts = [str(details[outcome]) for outcome in ("reason", "error", "message", "problem") if details.get(outcome)]
    if not parts and isinstance(details.get("steps"), list):
        parts = [_step(step) for step in details["steps"][:STEPS] if isinstance(step, dict)]
    check = details.get("check")
    if isinstance(check, dict):
        parts.append(f"check {_step(check)}")
    return "; ".join(parts) or ", ".join(entry.tools_used) or entry.method


def _step(step: dict[str, Any]) -> str:
    tool = str(step.get("tool") or step.get("path") or "")
    end = step.get("error") or step.get("problem") or ("passed" if step.get("passed") else "") or step.get("outcome")
    return f"{tool} {end}".strip() if end else tool
