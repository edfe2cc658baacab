"""Work that does not hear the first time that it should end, as libraries do whose answer came at that moment."""

from __future__ import annotations

import asyncio


class Deaf:
    """Never ends by itself. `begun`: somebody waits for it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._told = 0

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._told += 1
            if self._told > 1:
                raise
