"""`prunella policy`: the bounds people set for automation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, id_lookup, listings, policy_fields
from cli.command_groups import command_group
from cli.confirmation import Yes, confirm
from cli.output import Json, Limit, Reason, coloured, plain, safe, show_fields, show_json, show_json_list, show_table
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("The bounds people set for automation.", default="show")

PREVIEW_TIMEOUT = 30.0
Changes = Annotated[
    list[str],
    typer.Argument(metavar="FIELD=VALUE...", help="Such as min_confidence=0.8; lists also take += and -=."),
]


@app.command()
def show(json: Json = False) -> None:
    """The policy in force, as it could be typed again."""

    async def work(plane: PlaneClient) -> None:
        found = await _policy(plane)
        if json:
            show_json(plain(found))
            return
        when = formatting.ago(found.update_time, datetime.now(UTC))
        changed = (
            f"{when} by {found.updated_by}: {found.reason}" if found.updated_by else "never; these are the defaults"
        )
        show_fields([("version", str(found.version)), ("changed", safe(changed)), ("", "")])
        show_fields(
            (name, safe(policy_fields.format_value(name, found) or formatting.NO_VALUE))
            for name in policy_fields.names()
        )

    run(work)


@app.command("set")
def set_(changes: Changes, reason: Reason, yes: Yes = False, json: Json = False) -> None:
    """Changes fields, after showing what will differ. Whoever else changed the policy meanwhile is not overruled."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.patcher_pb2 import UpdatePolicyRequest

        old = await _policy(plane)
        new, named = policy_fields.parse_changes(old, changes)
        if not _differ(old, new, named):
            _answer(old, json=json, text=f"nothing differs; version {old.version} stays in force")
            return
        confirm("change the policy?", yes=yes)
        # The etag is the version that was shown: a newer one makes the patcher refuse.
        request = UpdatePolicyRequest(policy=new, reason=reason, request_id=new_id())
        request.update_mask.paths.extend(named)
        answer = (await plane.patcher.UpdatePolicy(request, timeout=TIMEOUT)).policy
        _answer(answer, json=json, text=f"version {answer.version} is in force")

    run(work)


@app.command()
def history(limit: Limit = 20, json: Json = False) -> None:
    """Every version: who changed what, and why; newest first."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.patcher_pb2 import ListPolicyChangesRequest

        entries = listings.pages(plane.patcher.ListPolicyChanges, ListPolicyChangesRequest(), "changes", limit)
        if json:
            await show_json_list(entries)
            return
        now = datetime.now(UTC)
        rows = [_change(entry, now) async for entry in entries]
        show_table(("version", "?when", "by", "what", "why"), rows, empty="the policy was never changed")

    run(work)


@app.command("dry-run")
def dry_run(
    changes: Changes,
    decisions: Annotated[int, typer.Option("--decisions", min=1, max=1000, help="Look at so many of the last.")] = 100,
    json: Json = False,
) -> None:
    """What other values would have made of the last decisions. Changes nothing."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.patcher_pb2 import PreviewPolicyRequest

        old = await _policy(plane)
        new, named = policy_fields.parse_changes(old, changes)
        request = PreviewPolicyRequest(policy=new, decisions=decisions)
        request.update_mask.paths.extend(named)
        answer = await plane.patcher.PreviewPolicy(request, timeout=PREVIEW_TIMEOUT)
        if json:
            show_json(plain(answer))
            return
        _differ(old, new, named)
        labels = await id_lookup.labels(plane, (replay.plugin for replay in answer.replays))
        columns = ("attempt", "plugin", "now", "then", "why")
        rows = (_replay(replay, labels) for replay in answer.replays)
        show_table(columns, rows, empty="nothing would have turned out otherwise")
        looked = formatting.plural(len(answer.replays) + answer.unchanged_count, "decision")
        typer.echo(f"{len(answer.replays)} of {looked} would have turned out otherwise; nothing was changed")

    run(work)


async def _policy(plane: PlaneClient) -> Any:
    from prunella.v1.patcher_pb2 import GetPolicyRequest

    return (await plane.patcher.GetPolicy(GetPolicyRequest(), timeout=TIMEOUT)).policy


def _differ(old: Any, new: Any, named: list[str]) -> bool:
    """Shows what differs, before anything is sent; whether anything does."""
    pairs = ((name, policy_fields.format_value(name, old), policy_fields.format_value(name, new)) for name in named)
    rows = [
        (name, safe(before or formatting.NO_VALUE), safe(after or formatting.NO_VALUE))
        for name, before, after in pairs
        if before != after
    ]
    if rows:
        show_table(("field", "now", "then"), rows, empty="", err=True)
    return bool(rows)


def _answer(policy: Any, *, json: bool, text: str) -> None:
    if json:
        show_json(plain(policy))
    else:
        typer.echo(text)


def _change(entry: Any, now: datetime) -> tuple[str, ...]:
    what = "; ".join(f"{one.field} {one.before} → {one.after}" for one in entry.fields)
    return (str(entry.version), formatting.ago(entry.time, now), safe(entry.actor), safe(what), safe(entry.reason))


def _replay(replay: Any, labels: dict[str, str]) -> tuple[str, ...]:
    return (
        id_lookup.short(replay.attempt or replay.decision),
        safe(labels.get(replay.plugin, "")),
        _verdict(replay.current, replay.current_gate),
        _verdict(replay.proposed, replay.proposed_gate),
        safe(replay.explanation),
    )


def _verdict(word: str, gate: str) -> str:
    return f"{coloured(word)} {safe(gate)}".strip()
