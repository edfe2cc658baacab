"""How sweeps look at many attempts: so many at once, each in its own trace."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from libs.common.errors import Problem
from libs.common.telemetry import current_telemetry, use_traceparent
from services.patcher.attempt import Attempt

log = logging.getLogger(__name__)

AT_ONCE = 16


async def each(found: list[Attempt], work: Callable[[Attempt], Awaitable[None]]) -> int:
    """Does the work for every attempt, so many at once; one that meets a problem waits for the next time."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(attempt: Attempt) -> None:
        async with free:
            try:
                await work(attempt)
            except Problem as problem:
                log.warning("attempt %s waits: %s", attempt.id, problem.message)

    await asyncio.gather(*(one(attempt) for attempt in found))
    return len(found)


async def traced(attempt: Attempt, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Does the work in a span of the attempt's own trace."""
    with use_traceparent(attempt.traceparent), current_telemetry().span(name, attributes={"attempt": attempt.id}):
        await work()
