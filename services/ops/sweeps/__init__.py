"""Door 3, time passed: facts get their positions, old spans go, messages go out."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from services.ops.context import ServiceContext
from services.ops.sweeps.audit import log_facts, sign_checkpoint
from services.ops.sweeps.audit_check import check_audit
from services.ops.sweeps.insight import mark_past
from services.ops.sweeps.notifications import forget_notifications, notify
from services.ops.sweeps.timeline import KEPT, forget_spans, place_facts

__all__ = ["KEPT", "SWEEPS", "forget_notifications", "forget_spans", "notify", "place_facts"]

Sweep = Callable[[ServiceContext, datetime], Awaitable[int]]
SWEEPS: Mapping[str, tuple[float, Sweep]] = {
    "place_facts": (0.5, place_facts),
    "forget_spans": (300.0, forget_spans),
    "mark_past": (5.0, mark_past),
    "log_facts": (0.5, log_facts),
    "sign_checkpoint": (1.0, sign_checkpoint),
    "check_audit": (15.0, check_audit),
    "notify": (1.0, notify),
    "forget_notifications": (600.0, forget_notifications),
}
