"""Fail points, for tests: PRUNELLA_AGENT_FAILPOINT=<step> kills the supervisor with SIGKILL right after that step.

Rule: without the variable nothing happens. The plugin never sees it.
"""

from __future__ import annotations

import os
import signal

ARMED = os.environ.get("PRUNELLA_AGENT_FAILPOINT", "")


def hit(step: str) -> None:
    """Dies here, if this is the armed step."""
    if step == ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
