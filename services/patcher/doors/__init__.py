"""What every door of the patcher holds, and the step they share."""

from services.patcher.doors.given import SCHEMA, Doors, Settings, pinned_keys
from services.patcher.doors.questions import QUESTION_TIMEOUT, plugin_of, stands
from services.patcher.doors.steps import answer, bounds, go_on, keep, needs_staging, observe

__all__ = [
    "QUESTION_TIMEOUT", "SCHEMA", "Doors", "Settings", "answer", "bounds", "go_on", "keep", "needs_staging", "observe",
    "pinned_keys", "plugin_of", "stands",
]  # fmt: skip
