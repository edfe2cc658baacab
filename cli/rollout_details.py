"""One rollout as `prunella rollout show` prints it: what it brings, its waves, its history, its members."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cli import formatting, id_lookup, rollout_progress
from cli.output import coloured, console, safe, show_fields, show_table


def show_rollout(answer: Any, *, listed: bool) -> None:
    """Prints a rollout; with `listed` its members too."""
    rollout, now = answer.rollout, datetime.now(UTC)
    show_fields(
        [
            ("rollout", rollout.name.rpartition("/")[2]),
            ("brings", safe(f"{rollout.package} → {rollout.target}{' (configuration)' if rollout.config else ''}")),
            ("state", coloured(rollout.state)),
            ("why", safe(rollout.reason)),
            ("by", safe(rollout.author)),
            ("figures", safe(rollout_progress.summary(rollout))),
            ("budget", f"{rollout.budget} in flight at most"),
            ("approval", coloured(rollout.approval.status) if rollout.HasField("approval") else ""),
            ("began", formatting.ago(rollout.create_time, now)),
            ("deadline", formatting.ago(rollout.deadline_time, now).removeprefix(formatting.NO_VALUE)),
            ("took", formatting.elapsed(rollout.create_time, rollout.end_time).removeprefix(formatting.NO_VALUE)),
        ]
    )
    screen = console()
    for line in rollout_progress.waves(rollout):
        screen.print(line)
    rows = [
        (formatting.elapsed(rollout.create_time, one.time), coloured(one.from_state or formatting.NO_VALUE),
         coloured(one.to_state), str(one.wave), safe(one.observation), safe(one.actor.rpartition("/")[2]),
         safe(one.reason))
        for one in rollout.history
    ]  # fmt: skip
    if rows:
        show_table(("after", "from", "to", "?wave", "?seen", "?by", "why"), rows, empty="")
    if listed:
        found = [
            (safe(one.label or id_lookup.short(one.plugin)), str(one.wave), coloured(one.state),
             id_lookup.short(one.attempt), safe(one.reason))
            for one in answer.members
        ]  # fmt: skip
        show_table(("plugin", "wave", "state", "attempt", "why"), found, empty="no member is in this state")
