"""What is counted in an error report besides its own kind, as `prunella errors show` prints it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import typer

from cli import formatting, id_lookup
from cli.output import safe, show_table


def show_merged_kinds(kinds: Iterable[Any]) -> None:
    """What is counted in an error report besides its own kind."""
    listed = list(kinds)
    if not listed:
        return
    now = datetime.now(UTC)
    typer.echo("\nalso counted here:")
    show_table(("error", "times", "?last seen", "?type", "message"), (_kind(one, now) for one in listed), empty="")


def _kind(one: Any, now: datetime) -> tuple[str, ...]:
    return (
        id_lookup.short(one.report) if one.report else f"{safe(one.fingerprint[:8])}…",
        str(one.occurrences),
        formatting.ago(one.last_seen_time, now),
        safe(one.type),
        safe(one.message),
    )
