"""The REST routes of ops for the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec

from libs.common.connect.openapi import rest
from services.ops.web import legacy_shapes
from services.ops.web.legacy_routes import ATTEMPTS, FARTHEST, INCIDENTS, LIMIT, Approval, ManualAction

Json = dict[str, Any]

ANY: Json = {"type": "object"}
ROWS: Json = {"type": "array", "items": ANY}


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _integer(least: int, most: int) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most}


def _body(kind: type) -> Json:
    _, components = msgspec.json.schema_components([kind])
    found: Json = components[kind.__name__]
    return found


INCIDENT: Json = {
    "name": "incident",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9-]+$"},
}
KEY: Json = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string"}}

PATHS: dict[str, Json] = {
    INCIDENTS: {
        "get": rest(
            "Incidents, newest first, with what was decided",
            answer={"type": "object", "required": ["incidents"], "properties": {"incidents": ROWS}},
            parameters=[
                _query("status", {"enum": list(legacy_shapes.INCIDENT_STATUSES)}),
                _query("severity", {"enum": list(legacy_shapes.SEVERITIES)}),
                _query("limit", _integer(1, LIMIT)),
                _query("offset", _integer(0, FARTHEST)),
            ],
        )
    },
    ATTEMPTS: {
        "get": rest(
            "Attempts, newest first",
            answer={"type": "object", "required": ["attempts"], "properties": {"attempts": ROWS}},
            parameters=[_query("status", {"enum": list(legacy_shapes.STATUSES)}), _query("limit", _integer(1, LIMIT))],
        )
    },
    f"{INCIDENTS}/{{incident}}/approve": {
        "post": rest(
            "Approves the incident's waiting attempt; 409 when none waits",
            answer=ANY,
            body=_body(Approval),
            parameters=[INCIDENT, KEY],
        )
    },
    f"{INCIDENTS}/{{incident}}/manual-action": {
        "post": rest(
            "Closes or escalates the incident, or wants a remedy by hand",
            answer=ANY,
            body=_body(ManualAction),
            parameters=[INCIDENT, KEY],
        )
    },
}
