"""What was tried on an error report, line by line, as `errors show` and `queue show` print it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cli import words
from cli.output import safe, show_table

STEPS = 3


def show_history(entries: Iterable[Any]) -> None:
    """A table of what was tried, oldest first."""
    now = datetime.now(UTC)
    columns = ("when", "?by", "?strategy", "outcome", "?took", "what happened")
    show_table(columns, (_row(entry, now) for entry in entries), empty="nothing was tried yet")


def _row(entry: Any, now: datetime) -> tuple[str, ...]:
    word = entry.outcome or ("done" if entry.success else "failed")
    return (
        words.ago(entry.create_time, now),
        safe(entry.worker or entry.actor or words.NOTHING),
        safe(entry.strategy.rpartition("/")[2] or words.NOTHING),
        f"[green]{safe(word)}[/]" if entry.success else f"[red]{safe(word)}[/]",
        words.lasts(entry.duration),
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
    said = [str(details[word]) for word in ("reason", "error", "message", "problem") if details.get(word)]
    if not said and isinstance(details.get("steps"), list):
        said = [_step(step) for step in details["steps"][:STEPS] if isinstance(step, dict)]
    check = details.get("check")
    if isinstance(check, dict):
        said.append(f"check {_step(check)}")
    return "; ".join(said) or ", ".join(entry.tools_used) or entry.method


def _step(step: dict[str, Any]) -> str:
    tool = str(step.get("tool") or step.get("path") or "")
    end = step.get("error") or step.get("problem") or ("passed" if step.get("passed") else "") or step.get("outcome")
    return f"{tool} {end}".strip() if end else tool
