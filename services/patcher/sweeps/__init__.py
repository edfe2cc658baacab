"""Door 3, time passed: sweeps by what they move. The last line is the table of all."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from libs.common.idempotency import PRUNE_SECONDS, prune_requests
from services.patcher.context import ServiceContext
from services.patcher.sweeps import approvals, attempts, rollouts, slots, watches

SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {
    **attempts.SWEEPS,
    **approvals.SWEEPS,
    **slots.SWEEPS,
    **rollouts.SWEEPS,
    **watches.SWEEPS,
    "prune_requests": (PRUNE_SECONDS, prune_requests),
}
