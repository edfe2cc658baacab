"""What every door of the patcher holds, and the step they share."""

from services.patcher.doors.given import SCHEMA, ServiceContext, Settings, pinned_keys
from services.patcher.doors.questions import QUESTION_TIMEOUT, fleet, fleet_of, plugin_of, stands, why_not
from services.patcher.doors.steps import answer, bounds, go_on, keep, needs_staging, observe, weigh, weighed_out

__all__ = [
    "QUESTION_TIMEOUT", "SCHEMA", "ServiceContext", "Settings", "answer", "bounds", "fleet", "fleet_of", "go_on",
    "keep",
    "needs_staging", "observe", "pinned_keys", "plugin_of", "stands", "weigh", "weighed_out", "why_not",
]  # fmt: skip
