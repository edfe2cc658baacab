"""`prunella configurations`: versioned, signed configuration documents of packages and plugins."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.output import Json, Limit, plain, safe, show_fields, show_json, show_json_list, show_table
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Signed configurations of packages and plugins.")

EVERY = "every plugin"
Name = Annotated[
    str,
    typer.Argument(
        help="packages/{package}/configurations/{version}, or package@version.", autocompletion=completion.configuration
    ),
]
Package = Annotated[str, typer.Option("--package", help="Only of this package.")]
Plugin = Annotated[
    str, typer.Option("--plugin", "-p", help="Only for this plugin: label or id.", autocompletion=completion.plugin)
]
File = typer.Argument(exists=True, dir_okay=False, readable=True)


@app.command("list")
def list_(package: Package = "", plugin: Plugin = "", limit: Limit = 50, json: Json = False) -> None:
    """Configurations, newest first."""

    async def work(plane: PlaneClient) -> None:
        entries = listings.configurations(
            plane, limit, package=package, plugin=await id_lookup.optional_plugin(plane, plugin)
        )
        if json:
            await show_json_list(entries)
            return
        found = [entry async for entry in entries]
        labels = await id_lookup.labels(plane, (one.plugin for one in found))
        now = datetime.now(UTC)
        rows = [
            (
                safe(one.package),
                safe(one.version),
                safe(labels.get(one.plugin, EVERY)),
                formatting.ago(one.publish_time, now),
                safe(one.publisher),
                one.digest[:16],
            )
            for one in found
        ]
        empty = "no configuration yet; publish one with: prunella configurations publish ENVELOPE DOCUMENT"
        show_table(("package", "version", "for", "published", "?by", "digest"), rows, empty=empty)

    run(work)


@app.command()
def show(configuration: Name, json: Json = False) -> None:
    """One configuration and its document."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.patcher_pb2 import GetConfigurationRequest

        request = GetConfigurationRequest(name=_name(configuration))
        found = (await plane.patcher.GetConfiguration(request, timeout=TIMEOUT)).configuration
        if json:
            show_json(plain(found))
            return
        labels = await id_lookup.labels(plane, [found.plugin])
        show_fields(_fields(found, labels))
        typer.echo(_document(found.document))

    run(work)


@app.command()
def publish(envelope: Annotated[Path, File], document: Annotated[Path, File], json: Json = False) -> None:
    """Makes a signed configuration known: its DSSE envelope (JSON) and its document (JSON)."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.patcher_pb2 import PublishConfigurationRequest

        request = PublishConfigurationRequest(
            request_id=new_id(), envelope=envelope.read_bytes(), document=document.read_bytes()
        )
        answer = (await plane.patcher.PublishConfiguration(request, timeout=TIMEOUT)).configuration
        if json:
            show_json(plain(answer))
            return
        typer.echo(f"published configuration {safe(answer.package)} {safe(answer.version)} ({answer.digest[:16]})")

    run(work)


def _name(typed: str) -> str:
    package, found, version = typed.partition("@")
    return f"packages/{package}/configurations/{version}" if found else typed


def _fields(found: Any, labels: dict[str, str]) -> list[tuple[str, str]]:
    return [
        ("configuration", safe(f"{found.package} {found.version}")),
        ("name", safe(found.name)),
        ("for", safe(labels.get(found.plugin, EVERY))),
        ("digest", found.digest),
        ("size", formatting.byte_size(len(found.document))),
        ("published", f"{formatting.ago(found.publish_time, datetime.now(UTC))} by {safe(found.publisher)}"),
    ]


def _document(document: bytes) -> str:
    """The document with one field a line; as it came when it is no JSON."""
    import json

    try:
        return json.dumps(json.loads(document), indent=2, ensure_ascii=False)
    except ValueError:
        return safe(document.decode(errors="replace"))
