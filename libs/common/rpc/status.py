"""Problems on the wire and back: a canonical code and one ErrorInfo, with BadRequest and RetryInfo where they help.

What is not a Problem of a known class becomes INTERNAL without detail; what comes back without an ErrorInfo (an
unreachable server, a deadline) gets a reason of its own, so callers always branch on class and reason.
"""

from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from libs.common.errors import (
    Busy,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    Problem,
    Refused,
    Stale,
    Unauthenticated,
    Unavailable,
)

DOMAIN: Final = "prunella"
DETAILS: Final = "grpc-status-details-bin"
PUSHBACK: Final = "grpc-retry-pushback-ms"
LONGEST_PUSHBACK: Final = 5.0
LONGEST_MESSAGE: Final = 1024
LONGEST_VALUE: Final = 256
MOST_VALUES: Final = 16

_CLASSES: Final[dict[grpc.StatusCode, type[Problem]]] = {
    getattr(grpc.StatusCode, kind.code): kind
    for kind in (Invalid, NotFound, Conflict, Stale, Refused, Denied, Unauthenticated, Busy, Unavailable)
}
_CODES: Final = {kind: code for code, kind in _CLASSES.items()}

# Statuses that gRPC itself makes, which carry no ErrorInfo.
_BARE: Final[dict[grpc.StatusCode, tuple[type[Problem], str]]] = {
    grpc.StatusCode.UNAVAILABLE: (Unavailable, "UNREACHABLE"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Unavailable, "DEADLINE_EXCEEDED"),
    grpc.StatusCode.CANCELLED: (Unavailable, "CANCELLED"),
    grpc.StatusCode.UNIMPLEMENTED: (Refused, "UNIMPLEMENTED"),
    grpc.StatusCode.OUT_OF_RANGE: (Invalid, "OUT_OF_RANGE"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Busy, "RESOURCE_EXHAUSTED"),
}


def code_of(problem: Problem) -> grpc.StatusCode:
    """The canonical code of a problem; INTERNAL for a class of no code."""
    for kind in type(problem).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.INTERNAL


def status_of(problem: Problem) -> Status:
    """The rich status of a problem, with everything cut to fit into trailing metadata."""
    code = code_of(problem)
    status = Status(code=code_pb2.Code.Value(code.name), message=problem.message[:LONGEST_MESSAGE])
    values = {key: str(value)[:LONGEST_VALUE] for key, value in list(problem.metadata.items())[:MOST_VALUES]}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=problem.reason, domain=DOMAIN, metadata=values))
    if problem.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=problem.field, description=problem.message[:LONGEST_VALUE], reason=problem.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if problem.retry_after is not None:
        delay = Duration()
        delay.FromMicroseconds(round(problem.retry_after * 1_000_000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def trailers_of(problem: Problem) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata that carries a problem; a short `retry_after` also steers gRPC's own retries.

    A problem that a sibling raised goes on with the very details it came with.
    """
    details = _details(problem.__cause__) or status_of(problem).SerializeToString()
    trailers: list[tuple[str, str | bytes]] = [(DETAILS, details)]
    if isinstance(problem, Unavailable) and problem.retry_after is not None:
        # A negative pushback forbids gRPC to try again by itself.
        soon = problem.retry_after <= LONGEST_PUSHBACK
        trailers.append((PUSHBACK, str(round(problem.retry_after * 1000) if soon else -1)))
    return tuple(trailers)


def problem_of(error: grpc.aio.AioRpcError, server: str = "the server") -> Problem:
    """The problem the other side raised, or one that says how the call itself failed."""
    try:
        found = _rich(error.code(), Status.FromString(_details(error)))
    except DecodeError:
        found = None
    return found or _bare(error, server)


def _details(error: BaseException | None) -> bytes:
    if not isinstance(error, grpc.aio.AioRpcError):
        return b""
    metadata = error.trailing_metadata() or ()
    return next((value for key, value in metadata if key == DETAILS and isinstance(value, bytes)), b"")


def _rich(code: grpc.StatusCode, status: Status) -> Problem | None:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    known: tuple[error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo, ...]
    known = (info, request, retry)
    for detail in status.details:
        for message in known:
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    kind = _CLASSES.get(code)
    if kind is None or not info.reason:
        return None
    problem = kind(
        status.message,
        reason=info.reason,
        field=request.field_violations[0].field if request.field_violations else "",
        retry_after=retry.retry_delay.ToMicroseconds() / 1_000_000 if retry.HasField("retry_delay") else None,
    )
    problem.metadata = dict(info.metadata)
    return problem


def _bare(error: grpc.aio.AioRpcError, server: str) -> Problem:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return Invalid(f"the message is too large: {details}", reason="MESSAGE_TOO_LARGE")
    kind, reason = _BARE.get(code, (_CLASSES.get(code, Problem), code.name))
    if reason == "UNREACHABLE":
        return Unavailable(f"{server} cannot be reached: {details}", reason=reason, server=server)
    return kind(f"{server} answered {code.name}: {details}", reason=reason, server=server)
