"""Background tasks and how they end.

Rule: a task is cancelled until it is done. One cancellation is not enough: `asyncio.wait_for` before Python 3.12 may
swallow it when what it waits for completes at the same moment, and libraries use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN = 0.25


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks and returns when every one of them has ended; their errors are their own."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN)
