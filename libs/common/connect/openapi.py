"""The OpenAPI 3.1 document of a door, read from the protos and the access table.

Types follow protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/). Who may call a method is in
`x-role` (people) and `x-callers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.common import access
from libs.common.connect.methods import Method

Json = dict[str, Any]

VERSION: Final = "3.1.0"
KEY: Final = "authorization"
_INT32: Final[Json] = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_INT64: Final[Json] = {"type": ["string", "integer"], "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_FLOAT: Final[Json] = {"type": ["number", "string"], "pattern": "^(NaN|-?Infinity)$"}
_TYPES: Final[Mapping[int, Json]] = {
    FieldDescriptor.CPPTYPE_INT32: _INT32,
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.CPPTYPE_INT64: _INT64,
    FieldDescriptor.CPPTYPE_UINT64: _INT64,
    FieldDescriptor.CPPTYPE_DOUBLE: _FLOAT,
    FieldDescriptor.CPPTYPE_FLOAT: _FLOAT,
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
}
# Messages that have a form of their own in JSON.
_KNOWN: Final[Mapping[str, Json]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
}
_DETAIL: Final[Json] = {
    "type": "object",
    "required": ["type", "value"],
    "properties": {"type": {"type": "string"}, "value": {"type": "string"}, "debug": {"type": "object"}},
}
CONNECT_ERROR: Final[Json] = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": _DETAIL},
    },
}
REST_ERROR: Final[Json] = {
    "type": "object",
    "required": ["error", "reason", "field", "message", "remedy"],
    "properties": {name: {"type": "string"} for name in ("error", "reason", "field", "message", "remedy")},
}


def document(title: str, methods: Iterable[Method], others: Mapping[str, Json]) -> Json:
    """The document; `others` are paths that are no methods, as OpenAPI has them."""
    schemas: dict[str, Json] = {"ConnectError": CONNECT_ERROR, "RestError": REST_ERROR}
    paths = {method.path: {"post": _operation(method, schemas)} for method in methods}
    return {
        "openapi": VERSION,
        "info": {
            "title": title,
            "version": "v1",
            "description": "Methods are called as the Connect protocol has it (https://connectrpc.com/docs/protocol).",
        },
        "security": [{KEY: []}],
        "paths": dict(sorted((paths | dict(others)).items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {KEY: {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
    }


def route(title: str, methods: Iterable[Method], others: Mapping[str, Json]) -> Route:
    """GET /openapi.json; the document is made when it is first asked for."""
    known: list[Method] = list(methods)
    made: list[Json] = []

    async def answer(_request: Request) -> Response:
        if not made:
            made.append(document(title, known, others))
        return JSONResponse(made[0])

    return Route("/openapi.json", answer, methods=["GET"])


def rest(summary: str, *, answer: Json, body: Json | None = None, parameters: Iterable[Json] = ()) -> Json:
    """An operation of a REST route."""
    made: Json = {"summary": summary, "parameters": list(parameters), "responses": _responses("RestError", answer)}
    if body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return made


def _operation(method: Method, schemas: dict[str, Json]) -> Json:
    allowed = access.ACCESS[method.path]
    service = method.descriptor.containing_service.name
    kind = "application/connect+json" if method.streams else "application/json"
    frame: Json = {"type": "string", "format": "binary"}
    request = frame if method.streams else _message(method.descriptor.input_type, schemas)
    answer = frame if method.streams else _message(method.descriptor.output_type, schemas)
    made: Json = {
        "operationId": f"{service}.{method.descriptor.name}",
        "tags": [service],
        "x-callers": sorted(allowed.callers),
        "requestBody": {"required": True, "content": {kind: {"schema": request}}},
        "responses": _responses("ConnectError", answer, kind),
    }
    if access.NOBODY in allowed.callers:
        # Its body says who speaks.
        made["security"] = []
    if allowed.role:
        made["x-role"] = allowed.role
    if method.streams:
        made["description"] = "Answers are enveloped messages; the last one has flag 2 and says how it ended."
    return made


def _responses(error: str, answer: Json, kind: str = "application/json") -> Json:
    refused = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
    return {
        "200": {"description": "done", "content": {kind: {"schema": answer}}},
        "default": {"description": "what is wrong", "content": refused},
    }


def _message(found: Descriptor, schemas: dict[str, Json]) -> Json:
    if found.full_name in _KNOWN:
        return _KNOWN[found.full_name]
    name = found.full_name.removeprefix("prunella.v1.")
    if name not in schemas:
        made: Json = {"type": "object", "additionalProperties": False}
        schemas[name] = made  # before its fields, which may lead back to it
        made["properties"] = {field.json_name: _field(field, schemas) for field in found.fields}
    return {"$ref": f"#/components/schemas/{name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Json]) -> Json:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _one(field.message_type.fields_by_name["value"], schemas)}
    one = _one(field, schemas)
    return {"type": "array", "items": one} if field.is_repeated else one


def _one(field: FieldDescriptor, schemas: dict[str, Json]) -> Json:
    if field.message_type is not None:
        return _message(field.message_type, schemas)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]*={0,2}$"}
    return _TYPES.get(field.cpp_type, {"type": "string"})
