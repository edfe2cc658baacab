"""Door 3, time passed: every state that waits for a moment has its sweep here (leases.OWNERS, recurrence.OWNERS)."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from libs.common.idempotency import PRUNE_SECONDS, prune_requests
from services.queue.context import ServiceContext
from services.queue.sweeps.tasks import due, expire, fold, reap, strand, watch
from services.queue.sweeps.triage import untriaged

SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {
    "triage": (0.2, untriaged),
    "due": (0.2, due),
    "reap": (0.5, reap),
    "strand": (5.0, strand),
    "watch": (0.2, watch),
    "fold": (0.5, fold),
    "expire": (5.0, expire),
    "prune_requests": (PRUNE_SECONDS, prune_requests),
}
