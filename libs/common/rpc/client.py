"""Channels to a sibling: who calls, in which trace, with which deadline, and what is tried again.

Every unary call has a deadline (10 s when none is given); streams live as long as both sides want. gRPC itself tries
UNAVAILABLE again, three times in all and within a budget, because every call that changes something carries a
request_id. Errors come back as the problems the other side raised.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from libs.common import access
from libs.common.errors import Invalid, Problem
from libs.common.rpc.status import code_of, problem_of
from libs.common.telemetry import Telemetry, current_telemetry, current_traceparent

DEADLINE: Final = 10.0
_MIB: Final = 1024 * 1024

_SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
            # A stream is opened again by whoever knows where it stopped.
            {
                "name": [
                    {"service": "prunella.v1.AgentGateway", "method": "Connect"},
                    {"service": "prunella.v1.AgentGateway", "method": "FetchArtifact"},
                    {"service": "prunella.v1.PatcherService", "method": "FetchRelease"},
                    {"service": "prunella.v1.OpsService", "method": "WatchTimeline"},
                ]
            },
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)

CHANNEL_OPTIONS: Final[list[tuple[str, int | str]]] = [
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", 16 * _MIB),
    ("grpc.max_send_message_length", 32 * _MIB),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_500),
    # A proxy in the environment is for the outside world; no sibling is.
    ("grpc.enable_http_proxy", 0),
    # Each channel has its own connection, so one that backs off does not hold up the others.
    ("grpc.use_local_subchannel_pool", 1),
]


def channel(
    address: str, *, caller: str, key: str, telemetry: Telemetry | None = None, operator: str = ""
) -> grpc.aio.Channel:
    """A channel to host:port on which `caller` proves itself with the shared key.

    `operator` names the person a call is made for (callers `operator` and `ops`). Invalid when the address is empty.
    """
    if not address:
        raise Invalid(
            f"{caller} was not told where its sibling listens; set PRUNELLA_<SERVICE>_ADDRESS to its host:port",
            reason="ADDRESS_MISSING",
            caller=caller,
        )
    identity = [(access.AUTHORIZATION, access.service_token(key, caller))]
    if operator:
        identity.append((access.OPERATOR, operator))
    outgoing = _Outgoing(address, identity, telemetry)
    return grpc.aio.insecure_channel(
        address, options=CHANNEL_OPTIONS, interceptors=[_UnaryCalls(outgoing), _StreamedAnswers(outgoing)]
    )


class _Outgoing:
    """What both kinds of calls have in common."""

    def __init__(self, address: str, identity: list[tuple[str, str]], telemetry: Telemetry | None) -> None:
        self._address = address
        self._identity = identity
        self._telemetry = telemetry

    def details(self, details: grpc.aio.ClientCallDetails, deadline: float | None) -> grpc.aio.ClientCallDetails:
        """The call's details with identity, trace context and deadline."""
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._identity)
        traceparent = current_traceparent()
        if traceparent:
            metadata.add("traceparent", traceparent)
        timeout = details.timeout if details.timeout is not None else deadline
        return grpc.aio.ClientCallDetails(
            details.method, timeout, metadata, details.credentials, details.wait_for_ready
        )

    @contextmanager
    def trace(self, details: grpc.aio.ClientCallDetails) -> Iterator[None]:
        """A span around a call that is part of a trace."""
        if not current_traceparent():
            yield
            return
        service, _, method = _text(details.method).lstrip("/").rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        telemetry = self._telemetry or current_telemetry()
        with telemetry.span(f"{service}/{method}", kind=SpanKind.CLIENT, attributes=attributes) as span:
            try:
                yield
            except Problem as problem:
                _mark(span, problem)
                raise

    def problem(self, error: grpc.aio.AioRpcError, details: grpc.aio.ClientCallDetails) -> Problem:
        """The problem behind a failed call."""
        service = _text(details.method).lstrip("/").partition("/")[0].rpartition(".")[2]
        return problem_of(error, f"{service} at {self._address}")


class _UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        with self._outgoing.trace(client_call_details):
            call = await continuation(self._outgoing.details(client_call_details, DEADLINE), request)
            try:
                return await call
            except grpc.aio.AioRpcError as error:
                raise self._outgoing.problem(error, client_call_details) from error


class _StreamedAnswers(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        call = await continuation(self._outgoing.details(client_call_details, None), request)
        return self._answers(call, client_call_details)

    async def _answers(self, call: Any, details: grpc.aio.ClientCallDetails) -> AsyncIterator[Any]:
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._outgoing.problem(error, details) from error
        finally:
            # Whoever stops listening ends the call on the other side too.
            call.cancel()


def _mark(span: trace.Span, problem: Problem) -> None:
    span.set_attribute("rpc.grpc.status_code", code_of(problem).value[0])
    span.set_attribute("error.type", problem.reason)


def _text(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method
