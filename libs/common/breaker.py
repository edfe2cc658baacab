"""A breaker stops asking something that keeps failing, and finds out cheaply when it works again.

Closed: outcomes of the last `window` seconds are counted; once at least `volume` were seen and the share of failures
reaches `threshold`, it opens. Open: nothing is asked for `open_for` seconds. Then half-open: at most `probes` calls are
let through at once; `successes` good ones in a row close it, one bad one opens it again. Time is an argument (any
rising number of seconds); `Breaker` is the rule, `Guarded` puts it around calls of one process.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TypeVar
from weakref import WeakSet

from libs.common.clock import Clock
from libs.common.errors import Unavailable
from libs.common.telemetry import counter, gauge

T = TypeVar("T")

_known: WeakSet["Guarded"] = WeakSet()
_open = gauge("breakers_open", "Breakers that are open or half-open now, by what they stand before", ("kind",))
_changes = counter(
    "breaker_changes_total", "Breakers that changed, by what they stand before and what to", ("kind", "to")
)


class BreakerState(StrEnum):
    """Whether calls are let through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens and closes; times in seconds, `threshold` is a share of failures (0 to 1)."""

    window: float = 30.0
    volume: int = 5
    threshold: float = 0.5
    open_for: float = 15.0
    probes: int = 1
    successes: int = 1
    # More outcomes than this are not remembered, whatever the window says.
    most_outcomes: int = 1000

    def __post_init__(self) -> None:
        """A rule that could never open or never close is a mistake."""
        sensible = self.window > 0 and self.volume >= 1 and 0 < self.threshold <= 1 and self.open_for >= 0
        if not sensible or min(self.probes, self.successes) < 1 or self.most_outcomes < self.volume:
            message = f"this breaker could never work: {self}"
            raise ValueError(message)


@dataclass(slots=True)
class Breaker:
    """The state of one breaker; every method is told the time."""

    rule: BreakerRule
    state: BreakerState = BreakerState.CLOSED
    opened_at: float = 0.0
    probing: int = 0
    good: int = 0
    epoch: int = 0
    outcomes: deque[tuple[float, bool]] = field(default_factory=deque)

    def admit(self, now: float) -> int | None:
        """A ticket for one call, or None when it must not be made. Hand the ticket back with `record` or `release`."""
        if self.state is BreakerState.OPEN:
            if now < self.opened_at + self.rule.open_for:
                return None
            self._become(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN:
            if self.probing >= self.rule.probes:
                return None
            self.probing += 1
        return self.epoch

    def record(self, ticket: int, now: float, *, ok: bool) -> None:
        """How the call ended; a call from before the last change of state tells nothing about now."""
        if ticket != self.epoch:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._probed(now, ok=ok)
            return
        self.outcomes.append((now, ok))
        self._forget(now)
        failures = sum(1 for _, good in self.outcomes if not good)
        if len(self.outcomes) >= self.rule.volume and failures >= self.rule.threshold * len(self.outcomes):
            self._open(now)

    def release(self, ticket: int) -> None:
        """The call ended without telling anything, for example because it was cancelled."""
        if ticket == self.epoch and self.state is BreakerState.HALF_OPEN:
            self.probing -= 1

    def retry_after(self, now: float) -> float:
        """Seconds until a call may be let through; 0 when it may be now."""
        if self.state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self.opened_at + self.rule.open_for - now)

    def _probed(self, now: float, *, ok: bool) -> None:
        self.probing -= 1
        if not ok:
            self._open(now)
            return
        self.good += 1
        if self.good >= self.rule.successes:
            self._become(BreakerState.CLOSED)

    def _open(self, now: float) -> None:
        self.opened_at = now
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self.epoch += 1
        self.probing = self.good = 0
        self.outcomes.clear()

    def _forget(self, now: float) -> None:
        while self.outcomes and (
            self.outcomes[0][0] < now - self.rule.window or len(self.outcomes) > self.rule.most_outcomes
        ):
            self.outcomes.popleft()


class Guarded:
    """A breaker around the calls to one thing; `on_change(name, state)` is told every change of state.

    `fails(error)` says which exceptions count against it; by default all do. `kind` is the metrics' word for it, of a
    few: the name, unless names are many.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        rule: BreakerRule | None = None,
        *,
        on_change: Callable[[str, BreakerState], None] | None = None,
        fails: Callable[[Exception], bool] = lambda _: True,
        kind: str = "",
    ) -> None:
        self.name = name
        self.kind = kind or name
        self.breaker = Breaker(rule or BreakerRule())
        self._clock = clock
        self._on_change = on_change
        self._fails = fails
        _known.add(self)
        _open.labels(self.kind).set_function(partial(_count, self.kind))

    @property
    def state(self) -> BreakerState:
        """Whether calls are let through."""
        return self.breaker.state

    async def call(self, work: Callable[[], Awaitable[T]], *, timeout: float) -> T:
        """What `work` gives within `timeout` seconds; Unavailable (BREAKER_OPEN) without asking while it is open."""
        before = self.breaker.state
        ticket = self.breaker.admit(self._clock.monotonic())
        self._tell(before)
        if ticket is None:
            raise Unavailable(
                f"{self.name} failed too often and is not asked now",
                reason="BREAKER_OPEN",
                retry_after=self.breaker.retry_after(self._clock.monotonic()),
                dependency=self.name,
            )
        try:
            async with asyncio.timeout(timeout):
                answer = await work()
        except Exception as error:
            self._record(ticket, ok=not self._fails(error))
            raise
        except BaseException:
            self.breaker.release(ticket)
            raise
        self._record(ticket, ok=True)
        return answer

    def _record(self, ticket: int, *, ok: bool) -> None:
        before = self.breaker.state
        self.breaker.record(ticket, self._clock.monotonic(), ok=ok)
        self._tell(before)

    def _tell(self, before: BreakerState) -> None:
        if self.breaker.state is before:
            return
        _changes.labels(self.kind, self.breaker.state.value).inc()
        if self._on_change:
            self._on_change(self.name, self.breaker.state)


def _count(kind: str) -> int:
    return sum(1 for one in _known if one.kind == kind and one.state is not BreakerState.CLOSED)
