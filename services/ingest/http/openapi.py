"""The REST routes of ingest for the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec

from libs.common.connect.openapi import rest
from services.ingest.http.errors import Body
from services.ingest.http.legacy_routes import Heartbeat

Json = dict[str, Any]

OK: Json = {"type": "object", "required": ["ok"], "properties": {"ok": {"const": True}}}
HEARTBEAT: Json = {
    "type": "object",
    "required": ["ok", "commands", "next_heartbeat_seconds"],
    "properties": {
        "ok": {"const": True},
        "commands": {"type": "array", "items": {"type": "object"}},
        "next_heartbeat_seconds": {"type": "number"},
    },
}
COMMAND: Json = {
    "name": "command",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid", "minLength": 1},
}
KEY: Json = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string"}}


def _body(kind: type) -> Json:
    """The schema of a struct with those inside it in their places."""
    _, components = msgspec.json.schema_components([kind])

    def placed(part: Any) -> Any:
        if isinstance(part, dict):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            return placed(components[name]) if name else {key: placed(value) for key, value in part.items()}
        return [placed(one) for one in part] if isinstance(part, list) else part

    found: Json = placed(components[kind.__name__])
    return found


PATHS: dict[str, Json] = {
    "/api/errors": {
        "post": rest(
            "Reports up to 100 errors",
            answer={"type": "object", "required": ["outcomes"]},
            body=_body(Body),
            parameters=[KEY],
        )
    },
    "/api/plugins/heartbeat": {
        "post": rest("A heartbeat, answered with the commands that wait", answer=HEARTBEAT, body=_body(Heartbeat))
    },
    "/api/plugins/commands/{command}/ack": {
        "post": rest("A command is done", answer=OK, body={"type": "object"}, parameters=[COMMAND])
    },
    "/api/plugins/commands/{command}/fail": {
        "post": rest("A command failed", answer=OK, body={"type": "object"}, parameters=[COMMAND])
    },
}
