"""Background tasks and how they end.

Rule: a task is cancelled until it is done. One cancellation is not enough: `asyncio.wait_for` before Python 3.12 may
swallow it when what it waits for completes at the same moment, and libraries use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

REPEAT_SECONDS = 1.0  # until the next cancellation: a task has time to leave things in order


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks and returns when every one of them has ended; what they raised is dropped."""
    pending = set(tasks)
    while running := {task for task in pending if not task.done()}:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=REPEAT_SECONDS)
    for task in pending:
        if not task.cancelled():
            task.exception()
