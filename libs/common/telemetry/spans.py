"""Spans of one service, live or made afterwards, and those an agent reports.

A span made afterwards has given ids (`new_traceparent`), so that facts written meanwhile can already name it as their
parent. A foreign span's id follows from its content: reported twice, it is the same span.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from libs.common.telemetry.context import current_traceparent, format_traceparent, new_traceparent, parse_traceparent
from libs.common.telemetry.export import BufferingExporter
from libs.common.telemetry.logs import configure_logging, name_service

QUEUE = 8192
BATCH = 512
DELAY_MS = 200
CLOSE_SECONDS = 2.0

Attribute = str | bool | int | float
Attributes = Mapping[str, Attribute]


def _links(traceparents: Iterable[str]) -> list[Link]:
    return [Link(context) for context in map(parse_traceparent, traceparents) if context]


def _resource(service: str) -> Resource:
    return Resource({"service.name": service, "service.namespace": "prunella"})


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) * 1000


class TelemetrySettings(Protocol):
    """The settings a service's telemetry is made from."""

    @property
    def otlp(self) -> str: ...

    @property
    def log(self) -> str: ...


@dataclass(frozen=True)
class FinishedSpan:
    """A step with known times; `traceparent` is its parent's."""

    name: str
    start: datetime
    end: datetime
    traceparent: str
    error: str = ""
    attributes: Attributes = field(default_factory=dict)


class Telemetry:
    """The spans of one service; `otlp` is the receiver's URL, empty for none. `exporter` takes its place in tests."""

    def __init__(self, service: str, otlp: str = "", *, exporter: SpanExporter | None = None) -> None:
        self.service = service
        self._exporter = exporter or (BufferingExporter(otlp) if otlp else None)
        self._processor: BatchSpanProcessor | None = None
        self._provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        if self._exporter is not None:
            self._processor = BatchSpanProcessor(
                self._exporter, max_queue_size=QUEUE, schedule_delay_millis=DELAY_MS, max_export_batch_size=BATCH
            )
            self._provider.add_span_processor(self._processor)
        self.tracer = self._provider.get_tracer("prunella")

    @contextmanager
    def use(self) -> Iterator["Telemetry"]:
        """Run the block, and every task it starts, as this service."""
        token = _current.set(self)
        named = name_service(self.service)
        try:
            yield self
        finally:
            named()
            _current.reset(token)

    def enter(self) -> None:
        """Run the rest of this task as this service."""
        _current.set(self)
        name_service(self.service)

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        links: Iterable[str] = (),
    ) -> Iterator[trace.Span]:
        """A live span around the block, child of the running one; `links` are traceparents. An exception marks it."""
        with self.tracer.start_as_current_span(
            name, kind=kind, attributes=attributes, links=_links(links), record_exception=False
        ) as made:
            yield made

    def span_at(
        self,
        name: str,
        start: datetime,
        end: datetime,
        *,
        parent: str | None = None,
        traceparent: str = "",
        error: str = "",
        attributes: Attributes | None = None,
        links: Iterable[str] = (),
    ) -> str:
        """A span with known times, made afterwards; gives its traceparent.

        `parent` is a traceparent: None means the running span, empty none. `traceparent` gives the span's own ids,
        made before with `new_traceparent`.
        """
        above = current_traceparent() if parent is None else parent
        own = parse_traceparent(traceparent) or parse_traceparent(new_traceparent(above))
        if own is None:
            message = "a new traceparent is always well formed"
            raise AssertionError(message)
        step = FinishedSpan(name, start, end, above, error, attributes or {})
        self._emit(self.service, step, own, _links(links))
        return format_traceparent(own)

    def export_foreign(self, service: str, spans: Sequence[FinishedSpan]) -> None:
        """Send on steps that `service` (such as "agent") took; those without a trace are left out."""
        for step in spans:
            above = parse_traceparent(step.traceparent)
            if above is None:
                continue
            content = f"{service}|{step.traceparent}|{step.name}|{step.start.timestamp()}|{step.end.timestamp()}"
            span_id = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") or 1
            own = SpanContext(above.trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            self._emit(service, step, own, [])

    def close(self) -> None:
        """Send what waits, for at most 2 s."""
        if isinstance(self._exporter, BufferingExporter):
            self._exporter.flush_soon()
        last = threading.Thread(target=self._provider.shutdown, name=f"spans of {self.service}", daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)

    def _emit(self, service: str, made: FinishedSpan, own: SpanContext, links: list[Link]) -> None:
        if self._processor is None:
            return
        self._processor.on_end(
            ReadableSpan(
                name=made.name,
                context=own,
                parent=parse_traceparent(made.traceparent),
                resource=_resource(service),
                attributes=dict(made.attributes),
                links=links,
                kind=SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, made.error) if made.error else Status(StatusCode.UNSET),
                start_time=_nanoseconds(made.start),
                end_time=_nanoseconds(max(made.start, made.end)),
                instrumentation_scope=None,
            )
        )


_current: ContextVar[Telemetry | None] = ContextVar("telemetry", default=None)
_NOBODY = Telemetry("prunella")


def configure(service: str, settings: TelemetrySettings) -> Telemetry:
    """Logs of the process and the telemetry of one service, as its settings say; the running task enters it."""
    configure_logging(settings.log)
    telemetry = Telemetry(service, settings.otlp)
    telemetry.enter()
    return telemetry


def current_telemetry() -> Telemetry:
    """The telemetry of the service that is running; one without a receiver outside any service."""
    return _current.get() or _NOBODY
