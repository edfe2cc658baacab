"""Spans on their way out: sent in the background, kept for a short outage, then lost. They never block anybody.

The receiver is usually `ops`, which starts beside us and may restart: a batch is tried again for up to 30 s while later
spans wait in a bounded queue. One line is logged when an outage begins and one when it ends.
"""

import logging
import threading
import time
from collections.abc import Sequence

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

REQUEST_TIMEOUT = 2.0
MAX_OUTAGE_SECONDS = 30.0
LONGEST_PAUSE = 2.0

_log = logging.getLogger(__name__)

# The library logs every failed request; we say it once per outage.
for _noisy in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
    logging.getLogger(_noisy).setLevel(logging.CRITICAL)


class BufferingExporter(SpanExporter):
    """OTLP over HTTP that outlasts a restart of its receiver."""

    def __init__(self, endpoint: str, *, patience: float = MAX_OUTAGE_SECONDS) -> None:
        self._endpoint = endpoint
        self._patience = patience
        # Spans go to a sibling: never through a proxy of the environment.
        session = requests.Session()
        session.trust_env = False
        self._inner = OTLPSpanExporter(endpoint=endpoint, timeout=REQUEST_TIMEOUT, session=session)
        self._stopped = threading.Event()
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; runs in the processor's own thread."""
        give_up = time.monotonic() + self._patience
        pause = 0.1
        while True:
            if self._inner.export(spans) is SpanExportResult.SUCCESS:
                if self._away:
                    self._away = False
                    _log.info("spans are received again at %s", self._endpoint)
                return SpanExportResult.SUCCESS
            if not self._away:
                self._away = True
                _log.warning("spans are not received at %s; they wait a while and are then lost", self._endpoint)
            if time.monotonic() + pause > give_up or self._stopped.wait(pause):
                return SpanExportResult.FAILURE
            pause = min(pause * 2, LONGEST_PAUSE)

    def shutdown(self) -> None:
        """Give up waiting; the batch under way is the last."""
        self._stopped.set()
        self._inner.shutdown()  # type: ignore[no-untyped-call]

    def flush_soon(self) -> None:
        """Stop trying again, because the process is about to end."""
        self._stopped.set()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here between two exports."""
        del timeout_millis
        return True
