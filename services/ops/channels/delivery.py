"""Delivery: sends a message to a channel, with a breaker and a bound on what is in flight.

Rule: each channel has a breaker and two messages in flight at most, so one that hangs or fails holds up no other. A try
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
from services.ops.channels.responses import DeliveryError
from services.ops.channels.secrets import SecretBox
from services.ops.notify.message import Message
from services.ops.notify.model import Channel, Kind

log = logging.getLogger(__name__)

TIMEOUT = 10.0
IN_FLIGHT = 2
CAPACITY = 200  # channels remembered; settings hold fewer
LONGEST_PAUSE = 300.0
RULE = BreakerRule(window=120.0, volume=3, threshold=0.5, open_for=15.0)


@dataclass
class ChannelState:
    """The breaker of a channel, and what is in flight to it."""

    channel: Channel
    guarded: Guarded
    in_flight: int = 0
    not_before: float = 0.0


class ChannelSender:
    """All channels of this process; `key` is the plane's key in hex."""

    name = "channel sender"

    def __init__(self, clock: Clock, key: str) -> None:
        self.secrets = SecretBox(key)
        self._clock = clock
        self._states: dict[str, ChannelState] = {}
        self._client: httpx2.AsyncClient | None = None

    async def start(self) -> None:
        """Nothing: connections are opened when first used."""

    async def stop(self) -> None:
        """Closes the connections."""
        if self._client:
            await self._client.aclose()
            self._client = None

    def blocked(self, channel: Channel) -> str:
        """Why nothing may be sent to the channel now; empty when it may."""
        state, now = self._state(channel), self._clock.monotonic()
        if state.in_flight >= IN_FLIGHT:
            return "the channel is busy with other messages"
        if now < state.not_before:
            return "the channel asked for a pause"
        if state.guarded.breaker.retry_after(now) > 0:
            return "the channel failed too often and is spared for a moment"
        return ""

    async def deliver(self, message: Message, channel: Channel) -> str:
        """The response of a channel that accepted the message. Raises DeliveryError, or Unavailable without a try."""
        state = self._state(channel)
        state.in_flight += 1
        try:
            return await state.guarded.call(lambda: self.send(message, channel), timeout=TIMEOUT + 1)
        except DeliveryError as error:
            state.not_before = self._clock.monotonic() + min(error.retry_after, LONGEST_PAUSE)
            raise
        finally:
            state.in_flight -= 1

    async def send(self, message: Message, channel: Channel) -> str:
        """One try, whatever the breaker says. Raises DeliveryError."""
        try:
            secret = self.secrets.open(channel.sealed, channel.id)
            async with asyncio.timeout(TIMEOUT):
                return await self._send(message, channel, secret)
        except TimeoutError as error:
            raise DeliveryError(f"no answer within {TIMEOUT:g} s") from error
        except Problem as error:
            # A key that changed comes back no more often than a person types the secret again.
            raise DeliveryError(error.message) from error

    async def _send(self, message: Message, channel: Channel, secret: str) -> str:
        if channel.kind is Kind.EMAIL:
            return await mail.send(message, channel, secret, TIMEOUT)
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
                timeout=httpx2.Timeout(TIMEOUT),
                limits=httpx2.Limits(max_connections=64, max_keepalive_connections=8),
            )
        return self._client

    def _state(self, channel: Channel) -> ChannelState:
        found = self._states.get(channel.id)
        if found is None or found.channel != channel:
            while len(self._states) >= CAPACITY:
                del self._states[next(iter(self._states))]
            name = f"channel {channel.id}"
            guarded = Guarded(name, self._clock, RULE, on_change=_changed, fails=_counts, kind="channel")
            found = ChannelState(channel, guarded)
            self._states[channel.id] = found
        return found


def _counts(error: Exception) -> bool:
    """A refusal is an answer: the channel lives, its settings are wrong."""
    return not (isinstance(error, DeliveryError) and error.permanent)


def _changed(name: str, state: BreakerState) -> None:
    log.warning("the breaker of the %s is %s", name, state.value)
