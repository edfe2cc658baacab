"""Door 3, time passed: facts get their positions, old spans go, messages go out."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from libs.common.idempotency import PRUNE_SECONDS, prune_requests
from services.ops.context import ServiceContext
from services.ops.sweeps.audit import log_facts, sign_checkpoint
from services.ops.sweeps.audit_check import check_audit
from services.ops.sweeps.notifications import delete_old_notifications, notify
from services.ops.sweeps.projection_backfill import backfill_projections
from services.ops.sweeps.timeline import RETENTION, delete_old_probes, delete_old_spans, place_facts

__all__ = ["RETENTION", "SWEEPS", "delete_old_notifications", "delete_old_spans", "notify", "place_facts"]

Sweep = Callable[[ServiceContext, datetime], Awaitable[int]]
SWEEPS: Mapping[str, tuple[float, Sweep]] = {
    "place_facts": (0.5, place_facts),
    "delete_old_spans": (300.0, delete_old_spans),
    "delete_old_probes": (3600.0, delete_old_probes),
    "backfill_projections": (5.0, backfill_projections),
    "log_facts": (0.5, log_facts),
    "sign_checkpoint": (1.0, sign_checkpoint),
    "check_audit": (15.0, check_audit),
    "notify": (1.0, notify),
    "delete_old_notifications": (600.0, delete_old_notifications),
    "prune_requests": (PRUNE_SECONDS, prune_requests),
}
