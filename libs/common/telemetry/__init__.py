"""What others can see of us: spans, logs, metrics.

A process may hold several services (tests, `ops` beside its siblings), so nothing here is global but the trace context
itself: each service has a `Telemetry`, the doors of that service run "in" it, and module functions use the one they run
in. Spans are made live (`span`) or afterwards with known times (`span_at`); both can be part of a trace that came as
text.
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
from libs.common.telemetry.spans import ForeignSpan, Telemetry, configure, current, export_foreign, span, span_at

__all__ = [
    "ForeignSpan",
    "Telemetry",
    "configure",
    "configure_logging",
    "counter",
    "current",
    "current_trace_id",
    "current_traceparent",
    "declared",
    "export_foreign",
    "gauge",
    "histogram",
    "metrics_app",
    "new_traceparent",
    "span",
    "span_at",
    "trace_id",
    "use_traceparent",
]
