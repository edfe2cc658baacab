"""A rollout while it goes on: one line per wave and one for the whole, drawn again as plugins answer.

Rule: on a terminal the picture stays in its place; in a pipe each change is a line of its own. Watching changes
nothing, and Ctrl-C ends the watching, not the rollout.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from cli import formatting
from cli.output import coloured, console, plain, safe, show_json, show_text
from cli.plane_client import FAILED, UNREACHABLE_REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Group

    from cli.plane_client import PlaneClient

OVER = frozenset({"succeeded", "halted", "aborted"})
# Members that have their result, the good ones first.
GOOD = ("healthy",)
BAD = ("reverted", "broken", "silent", "rollback_failed", "rolled_back")
BUSY = ("started", "switched", "rolling_back")
APART = ("watched", "waiting", "offline", "skipped")
BAR = 24
WATCH_SECONDS = 0.5
# A watch outlives a restart of patcher.
MAX_FAILURES = 60


async def watch(plane: PlaneClient, name: str, *, json: bool) -> int:
    """Follows a rollout to its end; the exit status is 0 only when it succeeded."""
    from rich.live import Live

    screen = console()
    if screen.is_terminal and not json:
        with Live(console=screen, refresh_per_second=8) as live:
            async for rollout in _follow(plane, name):
                live.update(render(rollout))
    else:
        async for rollout in _follow(plane, name):
            _line(rollout, json=json)
    return 0 if rollout.state == "succeeded" else FAILED


async def _follow(plane: PlaneClient, name: str) -> Any:
    """The rollout each time it changed, the last time when it is over."""
    from libs.common.errors import Unavailable
    from prunella.v1.patcher_pb2 import Rollout

    seen, failures = Rollout(), 0
    while True:
        try:
            found = (await plane.call("patcher.GetRollout", name=name)).rollout
            failures = 0
        except Unavailable as problem:
            failures += 1
            if problem.reason not in UNREACHABLE_REASONS or failures > MAX_FAILURES:
                raise
            found = seen
        if found != seen:
            yield found
            seen = found
        if seen.state in OVER:
            return
        await asyncio.sleep(WATCH_SECONDS)


def _line(rollout: Any, *, json: bool) -> None:
    if json:
        show_json(plain(rollout), indent=None)
    else:
        over = f": {rollout.reason}" if rollout.reason else ""
        show_text(f"{rollout.state}, wave {rollout.wave} of {len(rollout.waves)}; {summary(rollout)}{over}")
    sys.stdout.flush()


def render(rollout: Any) -> Group:
    """The rollout with all its waves."""
    from rich.console import Group
    from rich.text import Text

    lines = [f"{coloured(rollout.state)}  {safe(rollout.package)} → {safe(rollout.target)}  {summary(rollout)}"]
    lines += waves(rollout)
    if rollout.reason:
        lines.append(f"[dim]{safe(rollout.reason)}[/]")
    return Group(*(Text.from_markup(line, overflow="fold") for line in lines))


def waves(rollout: Any) -> Iterator[str]:
    """One line per wave: who has a result, who is on the way, who comes later."""
    for wave in rollout.waves:
        here = "›" if wave.number == rollout.wave and rollout.state not in OVER else " "
        yield f"{here} wave {wave.number}  {_bar(wave)}  {safe(_wave_counts(wave))}"


def _bar(wave: Any) -> str:
    total = max(1, sum(wave.states.values()) or wave.plugins)
    drawn, left = "", BAR
    for states, colour, sign in ((GOOD, "green", "━"), (BAD, "red", "━"), (BUSY, "yellow", "━")):
        count = sum(wave.states.get(state, 0) for state in states)
        # Whoever counts at all is seen.
        cells = min(left, max(1 if count else 0, round(BAR * count / total)))
        drawn += f"[{colour}]{sign * cells}[/]" if cells else ""
        left -= cells
    return f"{drawn}[dim]{'─' * left}[/]"


def _wave_counts(wave: Any) -> str:
    parts = [
        f"{wave.states[state]} {state.replace('_', ' ')}"
        for state in (*GOOD, *BAD, *BUSY, *APART)
        if wave.states.get(state)
    ]
    return f"{formatting.plural(wave.plugins, 'plugin')}: {', '.join(parts) or 'none yet'}"


def summary(rollout: Any) -> str:
    """The whole in one line of numbers."""
    found = rollout.figures
    flying = f"{found.in_flight} in flight (at most {rollout.concurrency})"
    parts = [f"{found.healthy} of {found.plugins} healthy", flying]
    others = (
        ("counted_against", "against"), ("watched", "watched for proof"), ("waiting", "waiting"),
        ("offline", "offline"), ("skipped", "skipped"), ("rolled_back", "rolled back"),
    )  # fmt: skip
    parts += [f"{count} {label}" for name, label in others if (count := getattr(found, name))]
    if found.HasField("success_rate"):
        parts.append(f"success {formatting.percent(found.success_rate)}")
    if found.HasField("rollback_rate"):
        parts.append(f"rolled back {formatting.percent(found.rollback_rate)}")
    return ", ".join(parts)
