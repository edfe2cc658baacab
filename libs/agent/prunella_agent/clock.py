"""Time as an argument: what the agent reads and waits on.

Rule: nothing else in the agent asks the machine for the time. Wall time is only reported to the plane; every deadline
of the agent's own counts on its monotonic clock, because wall clocks of agents are years off and jump. That clock goes
on while the host is suspended: what was fresh before is not fresh after an hour's sleep.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

RUNNING_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Wall time (aware, UTC), monotonic seconds, and waiting."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Wall time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment, those of a suspended host included; never goes back."""
        return time.clock_gettime(RUNNING_CLOCK)

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)
