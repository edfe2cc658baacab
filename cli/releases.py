"""`prunella releases`: what may be installed, and who vouches for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, listings
from cli.command_groups import command_group
from cli.output import Json, Limit, plain, safe, show_fields, show_json, show_json_list, show_table
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("What may be installed, and who vouches for it.")

PUBLISH_TIMEOUT = 60.0
Package = Annotated[str, typer.Option("--package", help="Only of this package.")]
ReleaseName = Annotated[
    str,
    typer.Argument(
        help="packages/{package}/releases/{version}, or package@version.", autocompletion=completion.release
    ),
]
File = typer.Argument(exists=True, dir_okay=False, readable=True)


@app.command("list")
def list_(package: Package = "", limit: Limit = 50, json: Json = False) -> None:
    """Releases, newest first."""

    async def work(plane: PlaneClient) -> None:
        entries = listings.releases(plane, limit, package=package)
        if json:
            await show_json_list(entries)
            return
        now = datetime.now(UTC)
        rows = [
            (
                safe(one.package),
                safe(one.version),
                formatting.byte_size(one.size),
                formatting.ago(one.publish_time, now),
                safe(one.publisher),
                one.digest[:16],
            )
            for one in [entry async for entry in entries]
        ]
        columns = ("package", "version", "?size", "published", "?by", "digest")
        show_table(columns, rows, empty="no release yet; publish one with: prunella releases publish ARCHIVE ENVELOPE")

    run(work)


@app.command()
def show(release: ReleaseName, json: Json = False) -> None:
    """One release and the keys that signed it."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.patcher_pb2 import GetReleaseRequest

        found = (await plane.patcher.GetRelease(GetReleaseRequest(name=_name(release)), timeout=TIMEOUT)).release
        if json:
            show_json(plain(found))
            return
        show_fields(_fields(found))

    run(work)


@app.command()
def publish(
    archive: Annotated[Path, File],
    envelope: Annotated[Path, File],
    json: Json = False,
) -> None:
    """Makes a signed release known: its archive (.tar.gz) and its DSSE envelope (JSON)."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.patcher_pb2 import PublishReleaseRequest

        request = PublishReleaseRequest(
            request_id=new_id(), envelope=envelope.read_bytes(), artifact=archive.read_bytes()
        )
        answer = await plane.patcher.PublishRelease(request, timeout=PUBLISH_TIMEOUT)
        if json:
            show_json(plain(answer.release))
            return
        typer.echo(f"published {answer.release.package} {answer.release.version} ({answer.release.digest[:16]})")

    run(work)


def _name(typed: str) -> str:
    package, found, version = typed.partition("@")
    return f"packages/{package}/releases/{version}" if found else typed


def _fields(release: Any) -> list[tuple[str, str]]:
    return [
        ("release", safe(f"{release.package} {release.version}")),
        ("name", safe(release.name)),
        ("digest", release.digest),
        ("size", formatting.byte_size(release.size)),
        ("published", f"{formatting.ago(release.publish_time, datetime.now(UTC))} by {safe(release.publisher)}"),
        ("signed by", ", ".join(release.key_ids)),
    ]
