"""Bringing a message to a channel, until it takes it, refuses it for good, or the time for trying is over.

Rule: the delivery's row says what became of it and how often it was tried; the errand behind it only makes sure that
somebody goes on. The id the receiver sees is the delivery's, the same in every try.
"""

from __future__ import annotations

from typing import Any

from libs.common.database import Transaction
from libs.common.errands import Errand, Runner
from libs.common.errors import Unavailable
from libs.common.telemetry import counter
from services.ops.channels.answers import NotTaken, printable
from services.ops.channels.post import TRY
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
    """One try. Raises NotTaken or Unavailable when there will be another."""
    async with ctx.database.reading() as reading:
        found = await deliveries.get(reading, errand.subject)
        told = await notifications.get(reading, found.notification) if found else None
        settings, _ = await notification_settings.get(reading)
    if found is None or told is None or found.state in escalation.ENDED:
        return {}
    channel = settings.channel(found.channel)
    if channel is None:
        return _end(State.SUPPRESSED, error="the channel was removed")
    answer: dict[str, Any] = {"kind": channel.kind.value}
    if ctx.clock.now() >= found.created_at + settings.retry_for:
        return answer | _end(State.FAILED, error=f"given up; {found.error or 'it was never free'}")
    if why := ctx.post.held(channel):
        if not found.error:
            await _complain(ctx, found, why)
        raise Unavailable(why, reason="CHANNEL_HELD")
    begun = await ctx.database.transaction(lambda tx: deliveries.begin_try(tx, found.id))
    if begun is None:
        return {}
    try:
        said = await ctx.post.bring(_message(told, begun), channel)
    except NotTaken as error:
        if error.refused:
            return answer | _end(State.FAILED, error=error.said)
        await _complain(ctx, found, error.said)
        raise
    return answer | _end(State.SENT, answer=said)


async def settle(_doors: ServiceContext, tx: Transaction, errand: Errand, answer: dict[str, Any]) -> None:
    """Writes down how it ended, and has the next step told at once when the whole step failed."""
    if not answer:
        return
    delivery = await deliveries.get(tx, errand.subject)
    # The message is locked before its delivery, as everywhere.
    told = await notifications.get(tx, delivery.notification, lock=True) if delivery else None
    if delivery is None or told is None:
        return
    ended = await deliveries.end(
        tx, delivery.id, State(answer["state"]), error=answer["error"], answer=answer["answer"]
    )
    if ended is None:
        return
    if ended.state is not State.SUPPRESSED:
        tx.record(wire.delivery_ended(told, ended))
        kind = str(answer["kind"])
        tx.after_commit(lambda: _ended.labels(kind, ended.state.value).inc())
    if told.state is not State.ACKNOWLEDGED:
        everyone = (await deliveries.of(tx, [told.id]))[told.id]
        failed = escalation.gives_up(each.state for each in everyone if each.step == told.step)
        state = escalation.state(each.state for each in everyone)
        await notifications.save(tx, wire.moved(told, state, tx.now if failed else told.act_by))


async def settle_nothing(_doors: ServiceContext, _tx: Transaction, _errand: Errand, _answer: dict[str, Any]) -> None:
    """The answer on the errand's row is all there is."""


async def gave_up(ctx: ServiceContext, tx: Transaction, errand: Errand, error: str) -> None:
    """No more tries are left."""
    await settle(ctx, tx, errand, {"kind": "none"} | _end(State.FAILED, error=error))


async def try_channel(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """Sends a test, and says what the other side said."""
    async with ctx.database.reading() as reading:
        settings, _ = await notification_settings.get(reading)
    channel = settings.channel(errand.subject)
    if channel is None:
        return {"delivered": False, "answer": "the channel was removed"}
    message = trial(errand.id, channel.id, errand.payload["actor"], ctx.clock.now())
    try:
        return {"delivered": True, "answer": await ctx.post.speak(message, channel)}
    except NotTaken as error:
        return {"delivered": False, "answer": error.said}


async def not_tried(_doors: ServiceContext, _tx: Transaction, _errand: Errand, _error: str) -> None:
    """The error on the errand's row is all there is."""


RUNNERS = {
    DELIVER: Runner(deliver, settle, gave_up, timeout=TRY + 10, attempts=ENDLESS),
    TEST: Runner(try_channel, settle_nothing, not_tried, timeout=TRY + 2, attempts=1),
}


def _message(told: Notification, delivery: Delivery) -> Message:
    batch = told.batch
    return Message(
        id=delivery.id,
        notification=told.id,
        route=told.route,
        step=delivery.step,
        title=title(batch, step=delivery.step),
        severity=batch.severity,
        time=told.created_at,
        facts=batch.facts,
        kinds=batch.kinds,
        lines=batch.lines,
        asks=told.act_by is not None,
    )


def _end(state: State, *, error: str = "", answer: str = "") -> dict[str, Any]:
    return {"state": state.value, "error": printable(error), "answer": printable(answer)}


async def _complain(ctx: ServiceContext, delivery: Delivery, error: str) -> None:
    await ctx.database.transaction(lambda tx: deliveries.complain(tx, delivery.id, printable(error)))
