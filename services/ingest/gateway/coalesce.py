"""Many callers, one transaction: what is submitted at the same time is coalesced.

Rule: whoever submits while others do shares their call. Two items with the same key never share one, so that the second
sees what the first has done. An error goes to everybody who shared the call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST = 1000
# So few do not go sooner than this after the last ones (seconds): a call costs more than an item.
WORTH = 64
PACE = 0.005


class Coalescer(Generic[T, R]):
    """`work` gets the items of several callers and answers in the same order."""

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], key: Callable[[T], Hashable]) -> None:
        self._work = work
        self._key = key
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._called = 0.0

    def submit(self, item: T) -> asyncio.Future[R]:
        """The answer to come; it may be left unread."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_read)
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        try:
            while self._waiting:
                # Whoever submits meanwhile shares the call; alone and after a while, nobody waits.
                early = self._called + PACE - now()
                await asyncio.sleep(early if early > 0 and len(self._waiting) < WORTH else 0)
                self._called = now()
                await self._call(self._take())
        finally:
            self._task = None

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        taken: dict[Hashable, tuple[T, asyncio.Future[R]]] = {}
        held: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(taken) < MOST and len(held) < MOST:
            item = self._waiting.popleft()
            key = self._key(item[0])
            if key in taken:
                held.append(item)
            else:
                taken[key] = item
        self._waiting.extendleft(reversed(held))
        return list(taken.values())

    async def _call(self, taken: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._work([item for item, _ in taken])
        except Exception as error:  # noqa: BLE001 - it goes to everybody who submitted
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        except BaseException:
            for _, future in taken:
                future.cancel()
            raise
        for (_, future), answer in zip(taken, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _read(future: asyncio.Future[R]) -> None:
    if not future.cancelled():
        future.exception()
