"""Forwards spans to another collector, when one is configured.

Spans are no state, so this errand has no row: what a collector does not accept after three tries is lost, and counted.
"""

from __future__ import annotations

import asyncio
import logging

import httpx2

from libs.common.cancellation import cancel_and_wait
from libs.common.proxies import may_be_proxied
from libs.common.telemetry import counter

log = logging.getLogger(__name__)

BODIES = 64
BYTES = 32 << 20
TRIES = 3
TIMEOUT = 5.0

forwarded = counter("ops_spans_forwarded", "Span requests another collector accepted or lost", ["outcome"])


class SpanForwarder:
    """Posts OTLP bodies to `endpoint` + /v1/traces, one after another, from a bounded queue."""

    name = "span forwarder"

    def __init__(self, endpoint: str) -> None:
        self.url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else ""
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(BODIES)
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def __call__(self, body: bytes) -> None:
        """Queues a body; drops it when there is no room."""
        if not self.url:
            return
        if self._queue.full() or self._bytes + len(body) > BYTES:
            forwarded.labels("no_room").inc()
            return
        self._bytes += len(body)
        self._queue.put_nowait(body)

    async def start(self) -> None:
        """Begins to post."""
        if self.url:
            self._task = asyncio.create_task(self._run(), name="ops span forwarder")

    async def stop(self) -> None:
        """Stops; what waits is lost."""
        if self._task:
            await cancel_and_wait([self._task])

    async def _run(self) -> None:
        proxied = may_be_proxied(self.url)
        async with httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=proxied) as client:
            while True:
                body = await self._queue.get()
                self._bytes -= len(body)
                try:
                    outcome = "accepted" if await self._post(client, body) else "lost"
                except Exception:
                    log.exception("spans could not be forwarded")
                    outcome = "lost"
                forwarded.labels(outcome).inc()

    async def _post(self, client: httpx2.AsyncClient, body: bytes) -> bool:
        for attempt in range(TRIES):
            try:
                answer = await client.post(self.url, content=body, headers={"content-type": "application/x-protobuf"})
            except httpx2.HTTPError as error:
                log.debug("the collector does not answer: %s", error)
            else:
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer.is_success
            await asyncio.sleep(0.5 * 2**attempt)
        return False
