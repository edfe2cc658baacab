"""`prunella policy`: the bounds people set for automation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, id_lookup, listings, policy_fields
from cli.command_groups import command_group
from cli.command_shapes import run_list, show_answer
from cli.confirmation import confirm
from cli.options import Json, Limit, Reason, Yes
from cli.output import coloured, plain, safe, show_fields, show_json, show_table
from cli.plane_client import run

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
        answer = await plane.call("patcher.GetPolicy")
        found = answer.policy
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
        show_fields([("", ""), ("sandbox", safe(_sandbox(answer.sandbox)))])

    run(work)


@app.command("set")
def set_(changes: Changes, reason: Reason, yes: Yes = False, json: Json = False) -> None:
    """Changes fields, after showing what will differ. Whoever else changed the policy meanwhile is not overruled."""

    async def work(plane: PlaneClient) -> None:
        from google.protobuf.field_mask_pb2 import FieldMask

        old = await _policy(plane)
        new, named = policy_fields.parse_changes(old, changes)
        if not _differ(old, new, named):
            show_answer(old, lambda policy: f"nothing differs; version {policy.version} stays in force", json=json)
            return
        confirm("change the policy?", yes=yes)
        # The etag is the version that was shown: a newer one makes the patcher refuse.
        mask = FieldMask(paths=named)
        answer = (await plane.call("patcher.UpdatePolicy", policy=new, update_mask=mask, reason=reason)).policy
        show_answer(answer, lambda policy: f"version {policy.version} is in force", json=json)

    run(work)


@app.command()
def history(limit: Limit = 20, json: Json = False) -> None:
    """Every version: who changed what, and why; newest first."""
    columns = ("version", "?when", "by", "what", "why")
    run_list(listings.policy_changes, limit, columns, _change, empty="the policy was never changed", json=json)


@app.command("dry-run")
def dry_run(
    changes: Changes,
    decisions: Annotated[int, typer.Option("--decisions", min=1, max=1000, help="Look at so many of the last.")] = 100,
    json: Json = False,
) -> None:
    """What other values would have made of the last decisions. Changes nothing."""

    async def work(plane: PlaneClient) -> None:
        from google.protobuf.field_mask_pb2 import FieldMask

        old = await _policy(plane)
        new, named = policy_fields.parse_changes(old, changes)
        fields = {"policy": new, "update_mask": FieldMask(paths=named), "decisions": decisions}
        answer = await plane.call("patcher.PreviewPolicy", timeout=PREVIEW_TIMEOUT, **fields)
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


def _sandbox(found: Any) -> str:
    """What the sandbox gives, and what it lacks with the remedy."""
    from prunella.v1.patcher_pb2 import Isolation

    level = formatting.enum_label(Isolation, found.isolation)
    lacks = f"; it lacks {', '.join(found.missing)}: {found.remedy}" if found.missing else ""
    return f"{found.where or 'the sandbox'} gives isolation {level}{lacks}"


async def _policy(plane: PlaneClient) -> Any:
    return (await plane.call("patcher.GetPolicy")).policy


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
