"""Delivers a message to a channel, until it accepts it, refuses it for good, or the time for trying is over.

Rule: the delivery's row says what became of it and how often it was tried; the errand behind it only makes sure that
it goes on. The id the receiver sees is the delivery's, the same in every try.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from libs.common.database import Transaction
from libs.common.errands import Errand, Runner
from libs.common.errors import Unavailable
from libs.common.telemetry import counter
from services.ops.channels.delivery import TIMEOUT
from services.ops.channels.responses import DeliveryError, printable
from services.ops.context import ServiceContext
from services.ops.notify import escalation
from services.ops.notify.escalation import State
from services.ops.notify.message import Message, title, trial
from services.ops.store import deliveries, notification_settings, notifications
from services.ops.store.deliveries import Delivery
from services.ops.store.notifications import Notification
from services.ops.wire import notifications as wire

DELIVER = "deliver"
TEST = "test_channel"
# The settings' `retry_for` ends the trying; a number of tries would end sooner for a channel that fails quickly.
ENDLESS = 1_000_000

_ended = counter(
    "notification_deliveries_total", "Messages to people that a channel took or did not", ("kind", "outcome")
)


async def deliver(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """One try. Raises DeliveryError or Unavailable when there will be another."""
    async with ctx.database.reading() as reading:
        found = await deliveries.get(reading, errand.subject)
        notification = await notifications.get(reading, found.notification) if found else None
        settings = await notification_settings.get(reading)
    if found is None or notification is None or found.state in escalation.ENDED:
        return {}
    channel = settings.channel(found.channel)
    if channel is None:
        return _end(State.SUPPRESSED, error="the channel was removed")
    answer: dict[str, Any] = {"kind": channel.kind.value}
    if ctx.clock.now() >= found.create_time + settings.retry_for:
        return answer | _end(State.FAILED, error=f"given up; {found.error or 'it was never free'}")
    if reason := ctx.sender.blocked(channel):
        if not found.error:
            await _save_error(ctx, found, reason)
        raise Unavailable(reason, reason="CHANNEL_HELD")
    begun = await ctx.database.transaction(lambda tx: deliveries.begin_try(tx, found.id))
    if begun is None:
        return {}
    try:
        response = await ctx.sender.deliver(_message(notification, begun), channel)
    except DeliveryError as error:
        if error.permanent:
            return answer | _end(State.FAILED, error=error.detail)
        await _save_error(ctx, found, error.detail)
        raise
    return answer | _end(State.SENT, response=response)


async def settle(_ctx: ServiceContext, tx: Transaction, errand: Errand, answer: dict[str, Any]) -> None:
    """Saves how it ended, and escalates at once when the whole step failed."""
    if not answer:
        return
    delivery = await deliveries.get(tx, errand.subject)
    # The message is locked before its delivery, as everywhere.
    notification = await notifications.get(tx, delivery.notification, lock=True) if delivery else None
    if delivery is None or notification is None:
        return
    ended = await deliveries.end(
        tx, delivery.id, State(answer["state"]), error=answer["error"], response=answer["response"]
    )
    if ended is None:
        return
    if ended.state is not State.SUPPRESSED:
        tx.record(wire.delivery_ended(notification, ended))
        kind = str(answer["kind"])
        tx.after_commit(lambda: _ended.labels(kind, ended.state.value).inc())
    if notification.state is not State.ACKNOWLEDGED:
        everyone = (await deliveries.of(tx, [notification.id]))[notification.id]
        failed = escalation.step_failed(each.state for each in everyone if each.step == notification.step)
        state = escalation.state(each.state for each in everyone)
        act_by = tx.now if failed else notification.act_by_time
        await notifications.save(tx, replace(notification, state=state, act_by_time=act_by))


async def settle_nothing(_ctx: ServiceContext, _tx: Transaction, _errand: Errand, _answer: dict[str, Any]) -> None:
    """The answer on the errand's row is all there is."""


async def gave_up(ctx: ServiceContext, tx: Transaction, errand: Errand, error: str) -> None:
    """No more tries are left."""
    await settle(ctx, tx, errand, {"kind": "none"} | _end(State.FAILED, error=error))


async def try_channel(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """Sends a test, and returns the response."""
    async with ctx.database.reading() as reading:
        settings = await notification_settings.get(reading)
    channel = settings.channel(errand.subject)
    if channel is None:
        return {"delivered": False, "response": "the channel was removed"}
    message = trial(errand.id, channel.id, errand.payload["actor"], ctx.clock.now())
    try:
        return {"delivered": True, "response": await ctx.sender.send(message, channel)}
    except DeliveryError as error:
        return {"delivered": False, "response": error.detail}


async def not_tried(_ctx: ServiceContext, _tx: Transaction, _errand: Errand, _error: str) -> None:
    """The error on the errand's row is all there is."""


RUNNERS = {
    DELIVER: Runner(deliver, settle, gave_up, timeout=TIMEOUT + 10, attempts=ENDLESS),
    TEST: Runner(try_channel, settle_nothing, not_tried, timeout=TIMEOUT + 2, attempts=1),
}


def _message(found: Notification, delivery: Delivery) -> Message:
    batch = found.batch
    return Message(
        id=delivery.id,
        notification=found.id,
        route=found.route,
        step=delivery.step,
        title=title(batch, step=delivery.step),
        severity=batch.severity,
        time=found.create_time,
        facts=batch.facts,
        kinds=batch.kinds,
        lines=batch.lines,
        asks=found.act_by_time is not None,
    )


def _end(state: State, *, error: str = "", response: str = "") -> dict[str, Any]:
    return {"state": state.value, "error": printable(error), "response": printable(response)}


async def _save_error(ctx: ServiceContext, delivery: Delivery, error: str) -> None:
    await ctx.database.transaction(lambda tx: deliveries.save_error(tx, delivery.id, printable(error)))
