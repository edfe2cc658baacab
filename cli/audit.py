"""`prunella audit`: what the log says, what proves it, and what an auditor takes away.

Rule: a proof is verified here before it is shown. `check`, which compares a plane's log with its facts, and `verify`,
which needs no plane, end with 1 and name the first entry that is wrong.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import audit_verify, formatting, listings
from cli.command_groups import command_group
from cli.command_shapes import run_list
from cli.options import Facts, IncidentAbout, Json, Limit, PluginAbout
from cli.output import console, plain, safe, show_fields, show_json, show_text
from cli.plane_client import FAILED, fail, request, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("What was done, by whom and why, and what proves it.")

COLUMNS = ("#", "when", "who", "did", "?to", "?before → after", "why")
LONG = 3600.0
Size = Annotated[int, typer.Option("--size", min=0, help="Of the log when it had so many entries; 0 for the latest.")]
Actor = Annotated[str, typer.Option("--actor", "-a", help="Only done by: operators/ada, patcher, …")]
Since = Annotated[str, typer.Option("--since", help="From then on: 2h, 7d, or 2026-11-21T12:00.")]
Until = Annotated[str, typer.Option("--until", help="Before then: 2h, 7d, or 2026-11-21T12:00.")]


@app.command("list")
def list_(
    actor: Actor = "", fact: Facts = None, plugin: PluginAbout = "", incident: IncidentAbout = "", since: Since = "",
    until: Until = "", limit: Limit = 50, json: Json = False,
) -> None:  # fmt: skip
    """Entries of the log, newest first."""
    now = datetime.now(UTC)
    run_list(
        listings.audit, limit, COLUMNS, _row, empty="nothing was logged that fits", json=json, actor=actor, facts=fact,
        plugin=plugin, incident=incident, start_time=_parse_time(since, now, "--since"),
        end_time=_parse_time(until, now, "--until"),
    )  # fmt: skip


@app.command()
def checkpoint(size: Size = 0, json: Json = False) -> None:
    """The signed size and root of the log; keep it where nobody else can change it."""

    async def work(plane: PlaneClient) -> None:
        answer = await plane.call("ops.GetAuditCheckpoint", size=size)
        if json:
            show_json(plain(answer))
            return
        typer.echo(answer.checkpoint.note, nl=False)

    run(work)


@app.command()
def key() -> None:
    """The public keys the log is signed with, one to a line; keep them where nobody else can change them."""

    async def work(plane: PlaneClient) -> None:
        answer = await plane.call("ops.GetAuditCheckpoint")
        for one in answer.keys:
            typer.echo(one)

    run(work)


@app.command()
def prove(
    entry: Annotated[str, typer.Argument(help="Index of an entry, or the id of its fact.")] = "",
    old: Annotated[int, typer.Option("--from", min=-1, help="Prove that the log only grew since this size.")] = -1,
    size: Size = 0,
    json: Json = False,
) -> None:
    """Proves that an entry is in the log, or with --from that the log only grew; the proof is verified here."""
    if bool(entry) == (old >= 0):
        raise typer.BadParameter("name an entry, or a size with --from", param_hint="ENTRY")

    async def work(plane: PlaneClient) -> int:
        from services.ops.audit import merkle

        claim: dict[str, Any] = {"old_size": old}
        if entry:
            claim = {"index": int(entry)} if entry.isascii() and entry.isdecimal() else {"event_id": entry}
        found = await plane.call("ops.ProveAudit", size=size, **claim)
        if entry:
            leaf = merkle.leaf_hash(found.entry.entry)
            good = merkle.included(leaf, found.entry.index, found.size, found.hashes, found.root)
        else:
            good = merkle.consistent(old, found.size, found.old_root, found.root, found.hashes)
        if json:
            show_json(plain(found))
        else:
            show_fields(_proof(found, old))
        if not good:
            typer.echo("prunella: the proof proves nothing", err=True)
        return 0 if good else FAILED

    run(work)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write it.", dir_okay=False)],
    first: Annotated[int, typer.Option("--from", min=0, help="The first entry.")] = 0,
    size: Size = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Writes the log into a file that proves itself, up to a checkpoint."""
    if file.exists() and not force:
        fail(f"{file} is there already; an older export may convict a newer one. Replace it with --force")

    async def work(plane: PlaneClient) -> None:
        draft, end = file.with_name(f".{file.name}.part"), 0
        screen = console(err=True)
        try:
            with draft.open("w", encoding="utf-8", newline="\n") as out, screen.status("exporting …") as progress:
                wanted = request("ops.ExportAudit", from_index=first, size=size)
                async for answer in plane.ops.ExportAudit(wanted, timeout=LONG):
                    out.write(answer.lines)
                    end = answer.size
                    progress.update(f"exporting … {answer.next_index} of {end}")
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        typer.echo(f"{formatting.plural(end - first, 'entry').replace('entrys', 'entries')} in {file}", err=True)

    run(work)


@app.command()
def check(
    first: Annotated[int, typer.Option("--from", min=0, help="The first entry.")] = 0, json: Json = False
) -> None:
    """Compares the log of this plane with the facts in its database; 1 when something is not as it was logged."""

    async def work(plane: PlaneClient) -> int:
        found, size = list[Any](), 0
        screen = console(err=True)
        with screen.status("comparing …") as progress:
            async for answer in plane.ops.CheckAudit(request("ops.CheckAudit", from_index=first), timeout=LONG):
                found.extend(answer.findings)
                size = answer.size
                progress.update(f"comparing … {answer.next_index} of {size}")
        if json:
            show_json([plain(one) for one in found])
        for one in found if not json else []:
            show_text(one.detail)
        if not found and not json:
            typer.echo(f"all {size} entries say what their facts say, in the tree that was signed")
        return FAILED if found else 0

    run(work)


app.command("verify")(audit_verify.verify)


def _row(entry: Any, now: datetime) -> tuple[str, ...]:
    changed = f"{entry.before} → {entry.after}" if entry.before or entry.after else formatting.NO_VALUE
    return (
        str(entry.index),
        formatting.ago(entry.event.time, now),
        safe(entry.actor),
        safe(entry.fact),
        safe(entry.resource),
        safe(changed),
        safe(entry.event.reason),
    )


def _proof(found: Any, old: int) -> list[tuple[str, str]]:
    signed = f"checkpoint of {found.checkpoint.key}" if found.HasField("checkpoint") else "no checkpoint of this size"
    ends = [
        ("size", str(found.size)),
        ("root", found.root.hex()),
        ("signed by", safe(signed)),
        *((f"hash {number}", one.hex()) for number, one in enumerate(found.hashes)),
    ]
    if old >= 0:
        return [
            ("proven", f"the log of {found.size} begins with the log of {old}"),
            ("old root", found.old_root.hex()),
            *ends,
        ]
    entry = found.entry
    return [("proven", f"entry {entry.index} is in the log"), ("says", safe(entry.headline)), *ends]


def _parse_time(text: str, now: datetime, option: str) -> datetime | None:
    """A moment as people type it: so long ago, or a date with or without a time, here if no zone is said."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return now - formatting.parse_duration(text, option)
