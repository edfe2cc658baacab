"""Deaths on purpose, for tests: PRUNELLA_AGENT_CRASH=<step> kills the supervisor with SIGKILL right after that step.

Rule: without the variable nothing happens. The plugin never sees it.
"""

from __future__ import annotations

import os
import signal

POINT = os.environ.get("PRUNELLA_AGENT_CRASH", "")


def at(step: str) -> None:
    """Dies here, if this is the step."""
    if step == POINT:
        os.kill(os.getpid(), signal.SIGKILL)
