"""A status as Connect says it in JSON: code, message, and details that a person can read too.

The codes and their HTTP statuses are those of https://connectrpc.com/docs/protocol#error-codes.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status
from starlette.responses import Response

from libs.common.errors import Problem
from libs.common.rpc import status_of

HTTP: Final = {
    "canceled": 499,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "unavailable": 503,
    "unauthenticated": 401,
}
# What HTTP itself has a word for.
REASONS: Final = {
    "METHOD_UNKNOWN": 404,
    "NOT_POST": 405,
    "BODY_LATE": 408,
    "BODY_TOO_LARGE": 413,
    "BODY_TYPE": 415,
    "BODY_ENCODING": 415,
}
SAFE_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_KNOWN: Final[tuple[type[Message], ...]] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.Help,
)


def to_json(status: Status) -> dict[str, Any]:
    """The error as JSON."""
    made: dict[str, Any] = {"code": code(status), "message": status.message}
    if status.details:
        made["details"] = [_detail(detail) for detail in status.details]
    return made


def code(status: Status) -> str:
    """The code in Connect's spelling."""
    known = status.code in code_pb2.Code.values()
    name = code_pb2.Code.Name(status.code).lower() if known else "unknown"
    return "canceled" if name == "cancelled" else name


def response(status: Status, **headers: str) -> Response:
    """The error as a response."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    number = REASONS.get(info.reason) or HTTP.get(code(status), 500)
    known = {"WWW-Authenticate": "Service, Plugin"} if number == 401 else {"Allow": "POST"} if number == 405 else {}
    if number in {429, 503}:
        delay = retry.retry_delay.ToMicroseconds() / 1_000_000
        known = {"Retry-After": str(max(1, math.ceil(delay or 5)))}
    text = json.dumps(to_json(status), ensure_ascii=False)
    return Response(text, number, SAFE_HEADERS | known | headers, "application/json")


def problem_response(problem: Problem, **headers: str) -> Response:
    """A problem as a response."""
    return response(status_of(problem), **headers)


def _detail(packed: Packed) -> dict[str, Any]:
    name = packed.type_url.rpartition("/")[2]
    made: dict[str, Any] = {"type": name, "value": base64.b64encode(packed.value).decode().rstrip("=")}
    for kind in _KNOWN:
        if kind.DESCRIPTOR.full_name == name:
            try:
                made["debug"] = json_format.MessageToDict(kind.FromString(packed.value))
            except DecodeError:
                break
    return made
