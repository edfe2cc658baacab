"""What happens around every handler: who asks, in which trace, how long, and what becomes of an exception.

A problem becomes a status; anything else is logged with its trace and becomes INTERNAL without detail. Cancellation
passes. Calls belong to the trace of their caller; without one only calls that change something begin a trace. Agents'
calls and streams are never traced: a stream has no end worth a span, and an agent does not decide what we record.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import structlog
from opentelemetry.trace import SpanKind

from libs.common import access
from libs.common.errors import Invalid, Problem, Unavailable
from libs.common.rpc.request_text import cleaned
from libs.common.rpc.status import code_of, trailers_of
from libs.common.telemetry import Telemetry, histogram, use_traceparent

# A caller that sets no deadline gets this one, in seconds.
LONGEST_CALL: Final = 60.0
# What PostgreSQL says of texts it cannot hold; the statements are ours, the texts are the caller's.
_NOT_TEXT: Final = frozenset({"22021", "22P05"})
_READS: Final = ("Get", "List", "Explain", "Preview", "Prove")

Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger(__name__)
_seconds = histogram("rpc_seconds", "Time to answer a call, by service, method and code", ("service", "method", "code"))


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    streams: bool

    @property
    def traceparent(self) -> str:
        return next((str(value) for name, value in self.metadata if name == "traceparent"), "")

    @property
    def traced(self) -> bool:
        service, _, name = self.method.rpartition("/")
        if self.streams or service.endswith(".AgentGateway"):
            return False
        return bool(self.traceparent) or not name.startswith(_READS)


class Guard(grpc.aio.ServerInterceptor):
    """The one interceptor of a server."""

    def __init__(self, telemetry: Telemetry, key: str) -> None:
        self._telemetry = telemetry
        self.key = key

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Put the guard around the handler of a call; health and reflection stay as they are."""
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or access.is_open(method):
            return handler  # type: ignore[no-any-return]
        streams = handler.request_streaming or handler.response_streaming
        call = _Call(method, tuple(handler_call_details.invocation_metadata or ()), streams)
        return self._around(handler, call)

    def _around(self, handler: Any, call: _Call) -> grpc.RpcMethodHandler[Any, Any]:
        kind = f"{_shape(handler.request_streaming)}_{_shape(handler.response_streaming)}"
        inner = getattr(handler, kind)
        generates = inspect.isasyncgenfunction(inner)
        behaviour = self._generating(inner, call) if generates else self._answering(inner, call)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(behaviour, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]

    def _answering(self, inner: Callable[..., Awaitable[Any]], call: _Call) -> Callable[[Any, Context], Awaitable[Any]]:
        async def answer(request: Any, context: Context) -> Any:
            try:
                with self._inside(call):
                    request = cleaned(call.method, request)
                    if call.streams or context.time_remaining() is not None:
                        return await inner(request, context)
                    return await _bounded(inner(request, context))
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 (the caller gets a status, the log the rest)
                await _abort(context, error)

        return answer

    def _generating(
        self, inner: Callable[..., AsyncIterator[Any]], call: _Call
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                with self._inside(call):
                    async for response in inner(cleaned(call.method, request), context):
                        yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 (the caller gets a status, the log the rest)
                await _abort(context, error)

        return generate

    @contextmanager
    def _inside(self, call: _Call) -> Iterator[None]:
        began = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            self._telemetry.enter()
            access.set_caller(access.check(call.method, call.metadata, self.key))
            with self._trace(call):
                yield
        except Problem as problem:
            code = code_of(problem)
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            if not call.streams:
                method = call.method.rpartition(".")[2] if call.method in access.ACCESS else "other"
                _seconds.labels(self._telemetry.service, method, code.name).observe(time.perf_counter() - began)

    @contextmanager
    def _trace(self, call: _Call) -> Iterator[None]:
        if not call.traced:
            with _log_unexpected(call.method):
                yield
            return
        service, _, method = call.method.lstrip("/").rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "caller": access.caller()}
        with (
            use_traceparent(call.traceparent),
            self._telemetry.span(f"{service}/{method}", kind=SpanKind.SERVER, attributes=attributes) as span,
        ):
            try:
                with _log_unexpected(call.method):
                    yield
            except Problem as problem:
                span.set_attribute("rpc.grpc.status_code", code_of(problem).value[0])
                span.set_attribute("error.type", problem.reason)
                raise


@contextmanager
def _log_unexpected(method: str) -> Iterator[None]:
    """Log what must not reach the caller, while the trace is still the running one."""
    try:
        yield
    except (Problem, grpc.aio.AbortError):
        raise
    except Exception as error:
        if getattr(getattr(error, "orig", None), "sqlstate", "") in _NOT_TEXT:
            raise Invalid("a text has a character that cannot be kept, such as NUL", reason="TEXT_INVALID") from error
        _log.exception("a call failed in a way nobody planned", method=method)
        raise


async def _bounded(answer: Awaitable[Any]) -> Any:
    bound = asyncio.timeout(LONGEST_CALL)
    try:
        async with bound:
            return await answer
    except TimeoutError as error:
        if not bound.expired():
            raise
        raise Unavailable(f"no answer within {LONGEST_CALL:.0f} s", reason="DEADLINE_EXCEEDED") from error


async def _abort(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, Problem) and code_of(error) is not grpc.StatusCode.INTERNAL:
        await context.abort(code_of(error), error.message[:1024], trailers_of(error))
    await context.abort(grpc.StatusCode.INTERNAL, "something went wrong here; it was logged")


def _shape(streaming: bool) -> str:
    return "stream" if streaming else "unary"
