"""The settings of notifications ⇄ dataclasses, and how far the timeline was read for them."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any

from libs.common.database import Transaction
from services.ops.notify.model import Audience, Channel, EscalationStep, Kind, QuietHours, Route, Security, Settings
from services.ops.severity import Severity

GET = """
SELECT version, document, update_time, updated_by, reason FROM ops.notification_settings WHERE id = 1
"""
PUT = """
UPDATE ops.notification_settings
SET version = :version, document = CAST(:document AS jsonb), update_time = :update_time, updated_by = :updated_by,
    reason = :reason
WHERE id = 1
"""
POSITION = "SELECT position FROM ops.notification_cursor WHERE id = 1"
SAVE_POSITION = "UPDATE ops.notification_cursor SET position = :position WHERE id = 1"
WINDOWS = ("batch_window", "repeat_window", "summary_interval", "retry_for")


async def get(tx: Transaction, *, lock: bool = False) -> Settings:
    """The settings in force, secrets sealed."""
    row = await tx.first(f"{GET} FOR UPDATE" if lock else GET)
    assert row is not None, "the migration writes the row"
    made = decoded(row.document)
    about = {"update_time": row.update_time, "updated_by": row.updated_by, "reason": row.reason}
    return Settings(**_values(made), version=row.version, **about)


async def put(tx: Transaction, settings: Settings) -> None:
    """Saves the settings."""
    about = {name: getattr(settings, name) for name in ("version", "update_time", "updated_by", "reason")}
    await tx.run(PUT, document=json.dumps(encoded(settings)), **about)


async def position(tx: Transaction, *, lock: bool = False) -> int:
    """The position up to which facts were looked at."""
    return int(await tx.value(f"{POSITION} FOR UPDATE" if lock else POSITION))


async def save_position(tx: Transaction, position: int) -> None:
    """Facts up to a position were looked at."""
    await tx.run(SAVE_POSITION, position=position)


def encoded(settings: Settings) -> dict[str, Any]:
    """The document as it is stored; nothing in it is a secret in the open."""
    channels = [{k: v for k, v in asdict(each).items() if k != "secret" and v} for each in settings.channels]
    routes = [asdict(each) for each in settings.routes]
    for route in routes:
        for step in route["steps"]:
            step["acknowledge_within"] = step["acknowledge_within"].total_seconds()
    return {
        "channels": channels,
        "routes": routes,
        "quiet_hours": [asdict(each) for each in settings.quiet_hours],
        **{name: getattr(settings, name).total_seconds() for name in WINDOWS},
    }


def decoded(document: dict[str, Any]) -> Settings:
    """The settings in a document; what it does not say has its default."""
    windows: dict[str, Any] = {name: timedelta(seconds=document[name]) for name in WINDOWS if name in document}
    return Settings(
        channels=tuple(_channel(each) for each in document.get("channels", ())),
        routes=tuple(_route(each) for each in document.get("routes", ())),
        quiet_hours=tuple(QuietHours(**_tuples(each)) for each in document.get("quiet_hours", ())),
        **windows,
    )


def _channel(row: dict[str, Any]) -> Channel:
    values = _tuples(row) | {"kind": Kind(row["kind"]), "security": Security(row.get("security", Security.STARTTLS))}
    return Channel(**values)


def _route(row: dict[str, Any]) -> Route:
    steps = tuple(
        EscalationStep(tuple(each["channels"]), timedelta(seconds=each["acknowledge_within"])) for each in row["steps"]
    )
    known = {"min_severity": Severity(row["min_severity"]), "audience": Audience(row["audience"])}
    return Route(**_tuples(row) | {"steps": steps} | known)


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def _values(settings: Settings) -> dict[str, Any]:
    about = {"version", "update_time", "updated_by", "reason"}
    return {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in about}
