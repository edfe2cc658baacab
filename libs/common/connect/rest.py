"""Plain REST routes over the same methods: the names that older clients use, and errors they can read.

Rule: a route asks methods and changes nothing itself, so what holds for gRPC holds here. An error is
`{"error", "reason", "field", "message", "remedy"}`; a state that forbids something is 409.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from libs.common import access
from libs.common.connect import body, errors
from libs.common.connect.handler import HEADERS, ConnectHandler
from libs.common.errors import Invalid, Problem
from libs.common.rpc import StatusError, status_of

M = TypeVar("M", bound=Message)
T = TypeVar("T")
Endpoint = Callable[["RestCall"], Awaitable[Any]]

LARGEST: Final = 64 * 1024
BODY_INVALID: Final = "BODY_INVALID"
REMEDIES: Final = {
    400: "see /openapi.json for what this route takes",
    401: "send the header Authorization, as the documentation of this route says",
    403: "ask an operator who may do this",
    404: "list what there is, then name one of it",
    409: "look at the present state first; what you want is not possible in it",
    413: "send less at once",
    415: "send JSON with the header Content-Type: application/json",
    429: "wait as long as Retry-After says, then send it again",
    503: "send it again as Retry-After says",
}


class RestCall:
    """One request: who sent it, what it says, and the way to the methods."""

    def __init__(self, handler: ConnectHandler, request: Request, bearer: str) -> None:
        self.request = request
        self._handler = handler
        headers = {name: request.headers[name] for name in HEADERS if name in request.headers}
        scheme, _, credential = headers.get(access.AUTHORIZATION, "").partition(" ")
        if scheme == "Bearer":
            headers[access.AUTHORIZATION] = f"{bearer} {credential}"
        self.authorization = headers.get(access.AUTHORIZATION, "")
        self._metadata = list(headers.items())

    def authorize(self, method: str) -> None:
        """Whether whoever sent this may call a method. Raises Problem."""
        self._handler.in_process.authorize(f"/prunella.v1.{method}", self._metadata)

    async def invoke(self, method: str, request: Message, kind: type[M]) -> M:
        """The answer of a method such as `IngestService/GetIncident`. Raises StatusError."""
        path = f"/prunella.v1.{method}"
        answer = await self._handler.in_process.unary(path, request.SerializeToString(), self._metadata, 30.0)
        return kind.FromString(answer)

    def query(self, *known: str) -> dict[str, str]:
        """The query. Raises Invalid for a name that is not known, or given twice."""
        items = self.request.query_params.multi_items()
        for name, _ in items:
            if name not in known or sum(other == name for other, _ in items) > 1:
                raise Invalid(
                    f"the query may have {', '.join(known) or 'nothing'}, each once, not {name[:60]!r}",
                    reason="QUERY_UNKNOWN",
                    field=name[:60],
                )
        return dict(items)

    async def json(self, kind: type[T], *, largest: int = LARGEST) -> T:
        """The body. Raises Invalid naming the field that is wrong."""
        if body.media_type(self.request) != "application/json":
            raise Invalid("the body must be application/json", reason="BODY_TYPE", field="content-type")
        return parse_json(await body.read(self.request, largest), kind)


def parse_json(
    content: bytes,
    kind: type[T],
    *,
    invalid: str = BODY_INVALID,
    not_utf8: str = BODY_INVALID,
    not_json: str = BODY_INVALID,
) -> T:
    """JSON as a struct. Raises Invalid naming the field that is wrong, with the reasons that are given."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        rule, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").removeprefix(".") or "body"
        raise Invalid(f"{field}: {rule}", reason=invalid, field=field) from error
    except UnicodeDecodeError as error:
        raise Invalid("the body is not UTF-8", reason=not_utf8, field="body") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}", reason=not_json, field="body") from error


def route(handler: ConnectHandler, answer: Endpoint, bearer: str) -> Callable[[Request], Awaitable[Response]]:
    """A Starlette endpoint that answers with JSON, or says what is wrong.

    `bearer`: the scheme that is meant where an older client says Bearer.
    """

    async def endpoint(request: Request) -> Response:
        try:
            content = await answer(RestCall(handler, request, bearer))
        except Problem as problem:
            return error_response(status_of(problem))
        except StatusError as refusal:
            return error_response(refusal.status)
        except ClientDisconnect:
            return Response(status_code=499)
        return JSONResponse(content, headers=errors.SAFE_HEADERS)

    return endpoint


def error_response(status: Status, names: Mapping[str, str] | None = None) -> Response:
    """An error as these routes say it; `names` are what older clients call some reasons."""
    connect = errors.response(status)
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        for message in (info, wrong):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    number = 409 if errors.code(status) == "failed_precondition" else connect.status_code
    reason = info.reason or errors.code(status).upper()
    made = {
        "error": (names or {}).get(reason, reason.lower()),
        "reason": reason,
        "field": wrong.field_violations[0].field if wrong.field_violations else "",
        "message": status.message,
        "remedy": REMEDIES.get(number, "look into the service's log"),
    }
    headers = {name: value for name, value in connect.headers.items() if name not in {"content-length", "content-type"}}
    return Response(json.dumps(made, ensure_ascii=False), number, headers, "application/json")
