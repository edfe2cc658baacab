"""`prunella releases`: what may be installed, and who vouches for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cli import formatting, listings
from cli.command_groups import command_group
from cli.command_shapes import run_list, run_show, show_answer
from cli.options import FILE, Json, Limit, Package, ReleaseName
from cli.output import safe, show_fields
from cli.plane_client import run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("What may be installed, and who vouches for it.")

COLUMNS = ("package", "version", "?size", "published", "?by", "digest")
NONE_YET = "no release yet; publish one with: prunella releases publish ARCHIVE ENVELOPE"
PUBLISH_TIMEOUT = 60.0


@app.command("list")
def list_(package: Package = "", limit: Limit = 50, json: Json = False) -> None:
    """Releases, newest first."""
    run_list(listings.releases, limit, COLUMNS, _row, empty=NONE_YET, json=json, package=package)


@app.command()
def show(release: ReleaseName, json: Json = False) -> None:
    """One release and the keys that signed it."""
    run_show("patcher.GetRelease", "releases", release, _show, field="release", json=json)


@app.command()
def publish(archive: Annotated[Path, FILE], envelope: Annotated[Path, FILE], json: Json = False) -> None:
    """Makes a signed release known: its archive (.tar.gz) and its DSSE envelope (JSON)."""

    async def work(plane: PlaneClient) -> None:
        files = {"envelope": envelope.read_bytes(), "artifact": archive.read_bytes()}
        answer = await plane.call("patcher.PublishRelease", timeout=PUBLISH_TIMEOUT, **files)
        show_answer(answer.release, _published, json=json)

    run(work)


def _published(release: Any) -> str:
    return f"published {release.package} {release.version} ({release.digest[:16]})"


def _row(release: Any, now: datetime) -> tuple[str, ...]:
    return (
        safe(release.package),
        safe(release.version),
        formatting.byte_size(release.size),
        formatting.ago(release.publish_time, now),
        safe(release.publisher),
        release.digest[:16],
    )


async def _show(_plane: PlaneClient, release: Any) -> None:
    show_fields(_fields(release))


def _fields(release: Any) -> list[tuple[str, str]]:
    return [
        ("release", safe(f"{release.package} {release.version}")),
        ("name", safe(release.name)),
        ("digest", release.digest),
        ("size", formatting.byte_size(release.size)),
        ("published", f"{formatting.ago(release.publish_time, datetime.now(UTC))} by {safe(release.publisher)}"),
        ("signed by", ", ".join(release.key_ids)),
    ]
