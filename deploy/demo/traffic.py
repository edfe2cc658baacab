"""WebhookModel as shops send them: realistic events, in bursts, to the relays of the demo.

Rule: three events of five are what a careless serialiser trips over (accents, cents, pretty printing, escaped
slashes), spread evenly, so that any ten in a row hold six. Events come in bursts of seven at once: shops send so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

from deploy.demo import http_streams
from libs.common.cancellation import cancel_and_wait

BURST = 7
PAUSE_SECONDS = 0.45
NAMES = ("Zoë Müller", "Ana Peña", "Łukasz Wójcik", "Renée Dubois", "Søren Ågård", "Jürgen Groß")  # fmt: skip


def plain(number: int) -> bytes:
    """Compact, ASCII, whole numbers: the form that every serialiser gives back."""
    kind = ("order.paid", "order.shipped", "stock.changed")[number % 3]
    event = {"id": f"evt_{number}", "type": kind, "amount": 1000 + number % 900, "currency": "EUR"}
    return json.dumps(event, separators=(",", ":")).encode()


def rich(number: int) -> bytes:
    """One of the forms that come back different."""
    cents = f"{number % 90 + 9}.{number % 10}0"
    name = NAMES[number % len(NAMES)]
    forms = (
        f'{{"id":"evt_{number}","type":"customer.created","name":"{name}"}}',
        f'{{"id":"evt_{number}","type":"order.paid","amount":{cents},"currency":"EUR"}}',
        f'{{\n  "id": "evt_{number}",\n  "type": "order.shipped",\n  "parcels": {number % 3 + 1}\n}}',
        f'{{"id":"evt_{number}","type":"page.viewed","url":"https:\\/\\/shop.example\\/p\\/{number}"}}',
    )
    return forms[number % len(forms)].encode()


def events() -> Iterator[bytes]:
    """An endless stream of events, 60 % of them rich."""
    number = 0
    while True:
        number += 1
        yield plain(number) if number % 5 in (2, 4) else rich(number)


class Traffic:
    """Sends bursts to one relay; `port` is asked each time, because a restarted relay may listen elsewhere."""

    def __init__(self, port: Callable[[], int], *, burst: int = BURST, pause: float = PAUSE_SECONDS) -> None:
        self.sent = 0
        self.failed = 0
        self._port, self._burst, self._pause = port, burst, pause
        self._events = events()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to send."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops sending."""
        if self._task is not None:
            await cancel_and_wait([self._task])
            self._task = None

    async def send_burst(self) -> list[int]:
        """One burst; returns the statuses."""
        port = self._port()
        bodies = [next(self._events) for _ in range(self._burst)]
        statuses = await asyncio.gather(*(http_streams.post(port, "/webhook", body) for body in bodies)) if port else []
        self.sent += len(statuses)
        self.failed += sum(status != 200 for status in statuses)
        return statuses

    async def _run(self) -> None:
        while True:
            await self.send_burst()
            await asyncio.sleep(self._pause)
