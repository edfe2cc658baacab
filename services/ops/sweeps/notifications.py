"""Time passed: facts become messages, messages are sent, and those nobody acknowledges escalate.

Rule: facts are read from the timeline by position, and how far was read is written in the transaction of the messages,
so each fact is reported once however often it was delivered, and none is left out while ops was away. What is sent is
an errand for each channel; nothing is sent in here. How often incidents came back is told in sum.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.names import new_id
from services.ops.context import SCHEMA, ServiceContext
from services.ops.errands.deliver import DELIVER
from services.ops.notify import batching, escalation, summaries
from services.ops.notify.defaults import ABOUT_INCIDENTS, ENDS_OF_INCIDENTS
from services.ops.notify.escalation import NextStep, State
from services.ops.notify.model import Notice, Route, Settings
from services.ops.notify.quiet_hours import quiet_until
from services.ops.notify.routes import RECORDED, fact_kinds, matching
from services.ops.store import deliveries, notification_settings, notifications, repeats, timeline
from services.ops.store.notifications import Notification
from services.ops.timeline import TimelineFilter
from services.ops.wire import notifications as wire

BATCH = 500
MOST = 50
RETENTION = timedelta(days=90)
ERRAND_RETENTION = timedelta(days=7)


async def notify(ctx: ServiceContext, now: datetime) -> int:  # noqa: ARG001 - every sweep is given it
    """Does all of it; how many messages were opened, sent, settled by themselves or escalated."""
    async with ctx.database.reading() as reading:
        unread = await timeline.last(reading) > await notification_settings.position(reading)
        came_back = await repeats.any_due(reading)
    changed = 0
    while unread:
        more, unread = await ctx.database.transaction(fold_facts)
        changed += more
    if came_back:
        changed += await ctx.database.transaction(summarize)
    changed += await ctx.database.transaction(lambda tx: dispatch(tx, ctx))
    changed += await ctx.database.transaction(settle)
    return changed + await ctx.database.transaction(lambda tx: escalate(tx, ctx))


async def delete_old_notifications(ctx: ServiceContext, now: datetime) -> int:
    """Removes messages older than 90 days and errands done a week ago; how many rows."""
    gone = 0
    while batch := await ctx.database.transaction(
        lambda tx: notifications.delete_before(tx, messages=now - RETENTION, errands=now - ERRAND_RETENTION, batch=1000)
    ):
        gone += batch
    return gone


async def fold_facts(tx: Transaction) -> tuple[int, bool]:
    """Reads on in the timeline; how many messages changed, and whether there is more to read."""
    position = await notification_settings.position(tx, lock=True)
    settings = await notification_settings.get(tx)
    last = await timeline.last(tx)
    kinds = fact_kinds(settings)
    wanted = TimelineFilter(facts=tuple(sorted(kinds | ENDS_OF_INCIDENTS)))
    rows = await timeline.following(tx, wanted, after=position, last=last, limit=BATCH)
    changed = await _fold(tx, settings, [wire.notice(row) for row in rows if row.fact in kinds])
    ends = [wire.incident_end(row) for row in rows if row.fact in ENDS_OF_INCIDENTS]
    await repeats.extend(tx, ends, settings.repeat_window)
    full = len(rows) == BATCH
    await notification_settings.save_position(tx, rows[-1].position if full else max(last, position))
    return changed, full


async def _fold(tx: Transaction, settings: Settings, notices: Sequence[Notice]) -> int:
    groups: dict[tuple[str, bool], list[Notice]] = defaultdict(list)
    for notice in notices:
        for route in matching(settings, notice):
            groups[route.id, notice.urgent].append(notice)
    if not groups:
        return 0
    queued = {(each.route, each.urgent): each for each in await notifications.queued(tx)}
    pairs = {(name, each.key) for (name, _), listed in groups.items() for each in listed}
    known = await repeats.notifications_of(tx, pairs)
    again: dict[tuple[str, str], list[Notice]] = defaultdict(list)
    for (name, urgent), listed in groups.items():
        new, repeated = batching.deduplicated(listed, (key for route, key in known if route == name))
        if new:
            opened = queued.get((name, urgent)) or await _open(tx, settings, name, urgent=urgent)
            await notifications.save(tx, opened.add(new))
            keys = {(name, each.key): opened.id for each in new}
            await repeats.save_keys(tx, keys, [each.incident for each in new], tx.now + settings.repeat_window)
            known |= keys
        for each in repeated:
            again[name, each.key].append(each)
    await _count(tx, settings, known, again)
    return len(groups)


async def _count(
    tx: Transaction,
    settings: Settings,
    known: Mapping[tuple[str, str], str],
    again: Mapping[tuple[str, str], list[Notice]],
) -> None:
    """Counts what repeats; what asks about incidents is told in sum, and asked anew where its end spared people."""
    await repeats.count(tx, Counter(known[pair] for pair, listed in again.items() for _ in listed))
    about = {pair: listed for pair, listed in again.items() if listed[0].fact in ABOUT_INCIDENTS}
    await repeats.add(tx, about, settings.repeat_window, settings.summary_interval)
    for name in {route for route, _ in about}:
        route = settings.route(name) or RECORDED
        repeated = [known[pair] for pair in about if pair[0] == name]
        await repeats.ask_again(tx, repeated, [step.acknowledge_within for step in route.steps])


async def summarize(tx: Transaction) -> int:
    """Tells in sum what came back; how many incidents."""
    # Facts are folded under the same lock, so that nobody else fills a message meanwhile.
    await notification_settings.position(tx, lock=True)
    found = await repeats.due(tx, MOST)
    settings = await notification_settings.get(tx)
    queued = {(each.route, each.urgent): each for each in await notifications.queued(tx)}
    for route, each in found:
        notice = summaries.summary(each)
        group = (route, notice.urgent)
        opened = queued.get(group) or await _open(tx, settings, route, urgent=notice.urgent)
        queued[group] = opened.add([notice])
        await notifications.save(tx, queued[group])
    await repeats.summarized(tx, [(route, each.key) for route, each in found])
    return len(found)


async def _open(tx: Transaction, settings: Settings, route: str, *, urgent: bool) -> Notification:
    last = await notifications.throttle(tx, route, urgent=urgent)
    throttle = batching.next_throttle(last, settings.batch_window, tx.now, urgent=urgent)
    await notifications.save_throttle(tx, route, throttle, urgent=urgent)
    found = settings.route(route) or RECORDED
    due = batching.due_time(throttle, settings.hours_of(found), urgent=urgent)
    detail = "quiet hours" if due > throttle.due_time else "gathering what belongs with it"
    return Notification(new_id(), route, urgent, tx.now, due, detail=detail)


async def dispatch(tx: Transaction, ctx: ServiceContext) -> int:
    """Sends what is due; how many."""
    found = await notifications.due(tx, MOST)
    settings = await notification_settings.get(tx)
    for message in found:
        route = settings.route(message.route)
        if route is None:
            detail = "the route was removed" if message.route else "no route is set; it is only recorded"
            await notifications.save(tx, replace(message, state=State.SUPPRESSED, detail=detail))
            continue
        time = tx.now if message.urgent else quiet_until(settings.hours_of(route), tx.now)
        next_step = escalation.first(route, tx.now, message.batch.kinds)
        if time > tx.now:
            await notifications.save(tx, replace(message, due_time=time, detail="quiet hours"))
        elif next_step:
            await _send_step(tx, ctx, message, next_step)
    return len(found)


async def settle(tx: Transaction) -> int:
    """Asks nobody further about incidents that have ended; how many messages that were."""
    over = await _over(tx, await notifications.settled(tx, MOST))
    for message in over:
        what = "the incident has" if len(message.incidents) == 1 else "its incidents have"
        await notifications.save(
            tx, replace(message, act_by_time=None, detail=f"{what} ended; nobody is asked any more")
        )
    return len(over)


async def _over(tx: Transaction, found: Sequence[Notification]) -> list[Notification]:
    """Those whose every incident has ended."""
    ends = await notifications.incident_ends(tx, {incident for message in found for incident in message.incidents})
    return [
        message
        for message in found
        if escalation.incidents_ended(message.batch, message.incidents, ends, named=notifications.NAMED)
    ]


async def escalate(tx: Transaction, ctx: ServiceContext) -> int:
    """Notifies the next step of what nobody acknowledged; how many."""
    overdue = await notifications.overdue(tx, MOST)
    # What has ended since it was settled last is settled the next time.
    over = {message.id for message in await _over(tx, overdue)}
    found = [message for message in overdue if message.id not in over]
    settings = await notification_settings.get(tx)
    for message in found:
        route = settings.route(message.route)
        if route is None or message.state not in escalation.OPEN:
            await notifications.save(tx, replace(message, act_by_time=None))
            continue
        hours = settings.hours_of(route)
        if not escalation.overdue(message.act_by_time, hours, tx.now, urgent=message.urgent):
            await notifications.save(tx, replace(message, act_by_time=quiet_until(hours, tx.now)))
            continue
        await _escalate_one(tx, ctx, message, route)
    return len(found)


async def _escalate_one(tx: Transaction, ctx: ServiceContext, message: Notification, route: Route) -> None:
    next_step = escalation.following(route, message.step, tx.now)
    tx.record(wire.escalated(message, next_step))
    if next_step.step:
        await _send_step(tx, ctx, message, next_step)
    else:
        await notifications.save(
            tx, replace(message, act_by_time=None, detail="nobody answered, and nobody is left to ask")
        )


async def _send_step(tx: Transaction, ctx: ServiceContext, message: Notification, next_step: NextStep) -> None:
    assert next_step.step is not None
    detail = f"step {next_step.number + 1}: {', '.join(next_step.step.channels)}"
    sent = replace(
        message, state=State.SENDING, step=next_step.number, act_by_time=next_step.act_by_time, detail=detail
    )
    await notifications.save(tx, sent)
    ids = [new_id() for _ in next_step.step.channels]
    await deliveries.begin(tx, message.id, next_step.number, ids, next_step.step.channels)
    for id_ in ids:
        await send(tx, SCHEMA, DELIVER, id_, {}, key=f"{DELIVER} {id_}", database=ctx.database)
