"""`prunella configurations`: versioned, signed configuration documents of packages and plugins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cli import formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.command_shapes import run_list, run_show, show_answer
from cli.options import FILE, ConfigurationName, Json, Limit, Package, PluginFor
from cli.output import safe, show_fields, show_text
from cli.plane_client import run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Signed configurations of packages and plugins.")

COLUMNS = ("package", "version", "for", "published", "?by", "digest")
NONE_YET = "no configuration yet; publish one with: prunella configurations publish ENVELOPE DOCUMENT"
EVERY = "every plugin"


@app.command("list")
def list_(package: Package = "", plugin: PluginFor = "", limit: Limit = 50, json: Json = False) -> None:
    """Configurations, newest first."""
    run_list(
        listings.configurations, limit, COLUMNS, _row, empty=NONE_YET, json=json, labelled=True,
        package=package, plugin=plugin,
    )  # fmt: skip


@app.command()
def show(configuration: ConfigurationName, json: Json = False) -> None:
    """One configuration and its document."""
    run_show("patcher.GetConfiguration", "configurations", configuration, _show, field="configuration", json=json)


@app.command()
def publish(envelope: Annotated[Path, FILE], document: Annotated[Path, FILE], json: Json = False) -> None:
    """Makes a signed configuration known: its DSSE envelope (JSON) and its document (JSON)."""

    async def work(plane: PlaneClient) -> None:
        envelope_bytes, document_bytes = envelope.read_bytes(), document.read_bytes()
        answer = await plane.call("patcher.PublishConfiguration", envelope=envelope_bytes, document=document_bytes)
        show_answer(answer.configuration, _published, json=json)

    run(work)


def _published(one: Any) -> str:
    return f"published configuration {safe(one.package)} {safe(one.version)} ({one.digest[:16]})"


def _row(one: Any, labels: Mapping[str, str], now: datetime) -> tuple[str, ...]:
    return (
        safe(one.package),
        safe(one.version),
        safe(labels.get(one.plugin, EVERY)),
        formatting.ago(one.publish_time, now),
        safe(one.publisher),
        one.digest[:16],
    )


async def _show(plane: PlaneClient, found: Any) -> None:
    show_fields(_fields(found, await id_lookup.labels(plane, [found.plugin])))
    show_text(_document(found.document))


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
