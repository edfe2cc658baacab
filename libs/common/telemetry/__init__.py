"""What others can see of us: spans, logs, metrics.

A process may hold several services (tests, `ops` beside its siblings), so nothing here is global but the trace context
itself: each service has a `Telemetry`, and its doors run "in" it: there `current_telemetry` is that one. Spans are made
live (`span`) or afterwards with known times (`span_at`); both can be part of a trace that came as text.
"""

from libs.common.telemetry.context import (
    current_trace_id,
    current_traceparent,
    new_traceparent,
    trace_id,
    use_traceparent,
)
from libs.common.telemetry.logs import configure_logging
from libs.common.telemetry.metrics import counter, declared, gauge, histogram, metrics_app
from libs.common.telemetry.spans import FinishedSpan, Telemetry, configure, current_telemetry

__all__ = [
    "FinishedSpan", "Telemetry", "configure", "configure_logging", "counter", "current_telemetry", "current_trace_id",
    "current_traceparent", "declared", "gauge", "histogram", "metrics_app", "new_traceparent", "trace_id",
    "use_traceparent",
]  # fmt: skip
