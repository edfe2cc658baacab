"""Time is an argument: everything that needs it is handed a clock.

`SystemClock` is the machine's. `ManualClock` stands still until a test advances it, and wakes in order whoever sleeps
on it.
"""

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What time it is, how much has passed, and how to wait."""

    def now(self) -> datetime:
        """The moment, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of this clock."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """The moment, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since the machine's fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for real seconds."""
        await asyncio.sleep(max(0.0, seconds))


class ManualClock:
    """Time that moves only when told; for tests."""

    def __init__(self, start: datetime | None = None) -> None:
        start = start or datetime(2026, 1, 1, tzinfo=UTC)
        if start.tzinfo is None:
            message = "a clock starts at an aware moment (with tzinfo)"
            raise ValueError(message)
        self._start = start.astimezone(UTC)
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The moment, aware, in UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Seconds advanced since the start."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by so many seconds."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), woken))
        await woken

    @property
    def sleeping(self) -> int:
        """How many wait on this clock now."""
        return sum(1 for _, _, woken in self._sleepers if not woken.done())

    def advance(self, seconds: float) -> None:
        """Move on; whoever is due wakes when the loop runs next."""
        if seconds < 0:
            message = "time does not go back"
            raise ValueError(message)
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            self._wake_first()

    def set_back(self, seconds: float) -> None:
        """The time of day goes back, as when somebody corrects it; what has passed stays passed."""
        self._start -= timedelta(seconds=seconds)

    async def advance_async(self, seconds: float) -> None:
        """Move on sleeper by sleeper, letting each run at its own moment before the next is due."""
        end = self._elapsed + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._elapsed = max(self._elapsed, self._sleepers[0][0])
            self._wake_first()
            await self._settle()
        self._elapsed = max(self._elapsed, end)

    def _wake_first(self) -> None:
        _, _, woken = heapq.heappop(self._sleepers)
        if not woken.done():
            woken.set_result(None)

    async def _settle(self) -> None:
        # A task that was woken usually needs a few turns of the loop before it sleeps again.
        for _ in range(5):
            await asyncio.sleep(0)
