"""Work that ignores its first cancellation, as libraries do whose answer came at that moment."""

from __future__ import annotations

import asyncio


class IgnoresFirstCancellation:
    """Never ends by itself. `started`: somebody waits for it."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._cancellations = 0

    async def __call__(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._cancellations += 1
            if self._cancellations > 1:
                raise
