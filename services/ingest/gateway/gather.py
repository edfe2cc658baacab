"""Many callers, one look into the table.

Rule: whoever asks while others ask goes along in one transaction. Two with the same key never go together, so that the
second sees what the first has done. An error is everybody's who went along.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST = 1000
# So few do not go sooner than this after the last ones (seconds): a look costs more than an answer.
WORTH = 64
PACE = 0.005


class Gather(Generic[T, R]):
    """`work` gets what was asked together and answers in the same order."""

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], key: Callable[[T], Hashable]) -> None:
        self._work = work
        self._key = key
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._went = 0.0

    def ask(self, item: T) -> asyncio.Future[R]:
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
                # Whoever asks meanwhile comes along; alone and after a while, nobody waits.
                early = self._went + PACE - now()
                await asyncio.sleep(early if early > 0 and len(self._waiting) < WORTH else 0)
                self._went = now()
                await self._together(self._take())
        finally:
            self._task = None

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        taken: dict[Hashable, tuple[T, asyncio.Future[R]]] = {}
        held: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(taken) < MOST and len(held) < MOST:
            asked = self._waiting.popleft()
            key = self._key(asked[0])
            if key in taken:
                held.append(asked)
            else:
                taken[key] = asked
        self._waiting.extendleft(reversed(held))
        return list(taken.values())

    async def _together(self, taken: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._work([item for item, _ in taken])
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked
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
