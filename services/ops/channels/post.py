"""The post: brings a message to a channel, and spares a channel that does not answer.

Rule: each channel has a breaker and two messages in hand at most, so one that hangs or fails holds up no other. A try
takes ten seconds at most, whatever the other side does. A channel whose address changed begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import httpx2

from libs.common.breaker import BreakerRule, BreakerState, Guarded
from libs.common.clock import Clock
from libs.common.errors import Problem
from services.ops.channels import mail, slack, webhook
from services.ops.channels.answers import NotTaken
from services.ops.channels.sealing import Seal
from services.ops.notify.message import Message
from services.ops.notify.model import Channel, Kind

log = logging.getLogger(__name__)

TRY = 10.0
IN_HAND = 2
MOST = 200  # channels remembered; settings hold fewer
LONGEST_PAUSE = 300.0
RULE = BreakerRule(window=120.0, volume=3, threshold=0.5, open_for=15.0)


@dataclass
class Line:
    """What is known of a channel while it is spoken to."""

    channel: Channel
    guarded: Guarded
    in_hand: int = 0
    not_before: float = 0.0


class Post:
    """All channels of this process; `key` is the plane's key in hex."""

    name = "post"

    def __init__(self, clock: Clock, key: str) -> None:
        self.seal = Seal(key)
        self._clock = clock
        self._lines: dict[str, Line] = {}
        self._client: httpx2.AsyncClient | None = None

    async def start(self) -> None:
        """Nothing: connections are opened when first used."""

    async def stop(self) -> None:
        """Closes the connections."""
        if self._client:
            await self._client.aclose()
            self._client = None

    def held(self, channel: Channel) -> str:
        """Why the channel must not be spoken to now; empty when it may."""
        line, now = self._line(channel), self._clock.monotonic()
        if line.in_hand >= IN_HAND:
            return "the channel is busy with other messages"
        if now < line.not_before:
            return "the channel asked for a pause"
        if line.guarded.breaker.retry_after(now) > 0:
            return "the channel failed too often and is spared for a moment"
        return ""

    async def bring(self, message: Message, channel: Channel) -> str:
        """What the other side said when it took the message. Raises NotTaken, or Unavailable without a try."""
        line = self._line(channel)
        line.in_hand += 1
        try:
            return await line.guarded.call(lambda: self.speak(message, channel), timeout=TRY + 1)
        except NotTaken as error:
            line.not_before = self._clock.monotonic() + min(error.retry_after, LONGEST_PAUSE)
            raise
        finally:
            line.in_hand -= 1

    async def speak(self, message: Message, channel: Channel) -> str:
        """One try, whatever the breaker says. Raises NotTaken."""
        try:
            secret = self.seal.open(channel.sealed, channel.id)
            async with asyncio.timeout(TRY):
                return await self._send(message, channel, secret)
        except TimeoutError as error:
            raise NotTaken(f"no answer within {TRY:g} s") from error
        except Problem as error:
            # A key that changed comes back no more often than a person types the secret again.
            raise NotTaken(error.message) from error

    async def _send(self, message: Message, channel: Channel, secret: str) -> str:
        if channel.kind is Kind.EMAIL:
            return await mail.send(message, channel, secret, TRY)
        client = self._http()
        if channel.kind is Kind.SLACK:
            return await webhook.post(client, secret, slack.body(message), {}, secret=secret)
        payload = webhook.body(message)
        headers = webhook.signed(secret, message.id, payload, self._clock.now())
        return await webhook.post(client, channel.url, payload, headers)

    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                timeout=httpx2.Timeout(TRY),
                limits=httpx2.Limits(max_connections=64, max_keepalive_connections=8),
            )
        return self._client

    def _line(self, channel: Channel) -> Line:
        found = self._lines.get(channel.id)
        if found is None or found.channel != channel:
            while len(self._lines) >= MOST:
                del self._lines[next(iter(self._lines))]
            name = f"channel {channel.id}"
            guarded = Guarded(name, self._clock, RULE, on_change=_changed, fails=_counts, kind="channel")
            found = Line(channel, guarded)
            self._lines[channel.id] = found
        return found


def _counts(error: Exception) -> bool:
    """A refusal is an answer: the channel lives, its settings are wrong."""
    return not (isinstance(error, NotTaken) and error.refused)


def _changed(name: str, state: BreakerState) -> None:
    log.warning("the breaker of the %s is %s", name, state.value)
