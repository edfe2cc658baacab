"""`prunella rollback`: takes back one attempt, or everything that was applied since a moment.

Rule: rolling back needs no permit and passes no gate. What is taken back is shown first and, with `--watch`, followed
until every plugin has said its final word.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.confirmation import confirm
from cli.options import Json, Reason, Yes
from cli.output import coloured, plain, safe, show_json, show_table
from cli.plane_client import FAILED, USAGE_ERROR, fail, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

RECENT_TIMEOUT = 30.0
LOOK = 0.5
# What runs on a plugin now because of an attempt, or may.
APPLIED = frozenset({"applying", "probation", "committing", "success", "unconfirmed"})
OVER = frozenset({"rolled_back", "rollback_failed", "failed", "cancelled", "refused", "unconfirmed", "success"})
BACK = frozenset({"rolled_back", "cancelled", "failed", "refused"})

Attempt = Annotated[
    str,
    typer.Argument(
        help="Id of the attempt, or a unique part of it; not with --since.", autocompletion=completion.attempt
    ),
]
Since = Annotated[str, typer.Option("--since", help="Everything applied within this time, such as 30min.")]
Package = Annotated[str, typer.Option("--package", help="With --since: only of this package.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Wait until each has ended; the exit status says how.")]


def rollback(
    reason: Reason, attempt: Attempt = "", since: Since = "", package: Package = "",
    watch: Watch = False, yes: Yes = False, json: Json = False,
) -> None:  # fmt: skip
    """Takes back one attempt, or everything applied since a moment."""
    if bool(attempt) == bool(since):
        fail("say either which attempt, or --since how long ago (such as --since 30min)", USAGE_ERROR)
    if package and not since:
        fail("--package goes with --since", USAGE_ERROR)

    async def work(plane: PlaneClient) -> int:
        answer = (
            await _recent(plane, since, package, reason, yes=yes)
            if since
            else await _single(plane, attempt, reason, yes=yes)
        )
        taken = list(answer.attempts)
        if watch:
            del answer.attempts[:]
            taken = await asyncio.gather(*(_to_the_end(plane, one.name) for one in taken))
            answer.attempts.extend(taken)
        if json:
            show_json(plain(answer))
        else:
            await _show(plane, answer)
        return FAILED if answer.refusals or (watch and any(one.state not in BACK for one in taken)) else 0

    run(work)


async def _single(plane: PlaneClient, typed: str, reason: str, *, yes: bool) -> Any:
    from prunella.v1.patcher_pb2 import RollBackRecentResponse

    name = await id_lookup.resource(plane, "attempts", typed)
    await _ask(plane, [(await plane.call("patcher.GetAttempt", name=name)).attempt], yes=yes)
    answer = await plane.call("patcher.RollBackAttempt", name=name, reason=reason)
    return RollBackRecentResponse(attempts=[answer.attempt])


async def _recent(plane: PlaneClient, since: str, package: str, reason: str, *, yes: bool) -> Any:
    since_time = datetime.now(UTC) - formatting.parse_duration(since, "--since")
    found = [one async for one in listings.attempts(plane) if _fits(one, since_time, package)]
    await _ask(plane, found, yes=yes)
    fields = {"package": package, "reason": reason, "since_time": since_time}
    return await plane.call("patcher.RollBackRecent", timeout=RECENT_TIMEOUT, **fields)


def _fits(attempt: Any, since_time: datetime, package: str) -> bool:
    # What has a permit and no word yet may have switched already.
    switched = formatting.to_datetime(attempt.switch_time) or formatting.to_datetime(attempt.update_time)
    return attempt.state in APPLIED and package in ("", attempt.package) and bool(switched and switched >= since_time)


async def _ask(plane: PlaneClient, found: list[Any], *, yes: bool) -> None:
    """Shows what would be taken back; the patcher decides on what it finds then."""
    await _table(plane, found, err=True)
    confirm(f"take {formatting.plural(len(found), 'attempt')} back?", yes=yes)


async def _to_the_end(plane: PlaneClient, name: str) -> Any:
    while True:
        found = (await plane.call("patcher.GetAttempt", name=name)).attempt
        if found.state in OVER:
            return found
        await asyncio.sleep(LOOK)


async def _show(plane: PlaneClient, answer: Any) -> None:
    await _table(plane, list(answer.attempts), err=False)
    for one in answer.refusals:
        typer.echo(
            f"attempt {id_lookup.short(one.attempt)} stays as it is ({one.reason}): {safe(one.message)}", err=True
        )


async def _table(plane: PlaneClient, found: list[Any], *, err: bool) -> None:
    from prunella.v1.events_pb2 import Action

    labels = await id_lookup.labels(plane, (one.plugin for one in found))
    rows = [
        (
            id_lookup.short(one.name),
            safe(labels.get(one.plugin, "")),
            safe(formatting.action_summary(one, Action)),
            coloured(one.state),
            safe(one.reason),
        )
        for one in found
    ]
    columns = ("attempt", "plugin", "remedy", "state", "why")
    show_table(columns, rows, empty="nothing was applied since then", err=err)
