"""Facts become messages, messages go out, and those nobody answers go further.

Rule: facts are read from the timeline by position, and how far was read is written in the transaction of the messages,
so each fact is told of once however often it was delivered, and none is left out while ops was away. What goes out is
an errand for each channel; nothing is sent in here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.names import new_id
from services.ops.context import SCHEMA, ServiceContext
from services.ops.errands.deliver import DELIVER
from services.ops.notify import batching, escalation
from services.ops.notify.escalation import State, Turn
from services.ops.notify.model import Notice, Route, Settings
from services.ops.notify.quiet import loud_again
from services.ops.notify.routes import RECORDED, chosen, heard
from services.ops.store import deliveries, notification_settings, notifications, timeline
from services.ops.store.notifications import Notification
from services.ops.timeline import Wanted
from services.ops.wire import notifications as wire

BATCH = 500
MOST = 50
KEPT = timedelta(days=90)
ERRANDS_KEPT = timedelta(days=7)


async def notify(ctx: ServiceContext, now: datetime) -> int:  # noqa: ARG001 - every sweep is told the time
    """Does all of it; how many messages were opened, sent out, settled by themselves or escalated."""
    async with ctx.database.reading() as reading:
        news = await timeline.last(reading) > await notification_settings.read_to(reading)
    moved = 0
    while news:
        more, news = await ctx.database.transaction(gather)
        moved += more
    moved += await ctx.database.transaction(lambda tx: dispatch(tx, ctx))
    moved += await ctx.database.transaction(settle)
    return moved + await ctx.database.transaction(lambda tx: escalate(tx, ctx))


async def forget_notifications(ctx: ServiceContext, now: datetime) -> int:
    """Removes messages older than 90 days and errands done a week ago; how many rows."""
    gone = 0
    while batch := await ctx.database.transaction(
        lambda tx: notifications.forget(tx, messages=now - KEPT, errands=now - ERRANDS_KEPT, batch=1000)
    ):
        gone += batch
    return gone


async def gather(tx: Transaction) -> tuple[int, bool]:
    """Reads on in the timeline; how many messages changed, and whether there is more to read."""
    position = await notification_settings.read_to(tx, lock=True)
    settings, _ = await notification_settings.get(tx)
    last = await timeline.last(tx)
    wanted = Wanted(facts=tuple(sorted(heard(settings))))
    rows = await timeline.following(tx, wanted, after=position, last=last, limit=BATCH)
    changed = await _fold(tx, settings, [wire.notice(row) for row in rows])
    full = len(rows) == BATCH
    await notification_settings.move(tx, rows[-1].position if full else max(last, position))
    return changed, full


async def _fold(tx: Transaction, settings: Settings, notices: Sequence[Notice]) -> int:
    groups: dict[tuple[str, bool], list[Notice]] = defaultdict(list)
    for notice in notices:
        for route in chosen(settings, notice):
            groups[route.id, notice.urgent].append(notice)
    if not groups:
        return 0
    queued = {(each.route, each.urgent): each for each in await notifications.queued(tx)}
    pairs = {(name, each.key) for (name, _), listed in groups.items() for each in listed}
    known = await notifications.known(tx, pairs)
    times: Counter[str] = Counter()
    for (name, urgent), listed in groups.items():
        news, again = batching.sift(listed, (key for route, key in known if route == name))
        if news:
            opened = queued.get((name, urgent)) or await _open(tx, settings, name, urgent=urgent)
            await notifications.save(tx, opened.add(news))
            told = {(name, each.key): opened.id for each in news}
            await notifications.remember(tx, told, tx.now + settings.repeat_window)
            known |= told
        times.update(known[name, each.key] for each in again)
    await notifications.repeated(tx, times)
    return len(groups)


async def _open(tx: Transaction, settings: Settings, route: str, *, urgent: bool) -> Notification:
    last = await notifications.pace(tx, route, urgent=urgent)
    pace = batching.next_pace(last, settings.batch_window, tx.now, urgent=urgent)
    await notifications.keep_pace(tx, route, pace, urgent=urgent)
    found = settings.route(route) or RECORDED
    due = batching.due(pace, settings.hours_of(found), urgent=urgent)
    detail = "quiet hours" if due > pace.due else "gathering what belongs with it"
    return Notification(new_id(), route, urgent, tx.now, due, detail=detail)


async def dispatch(tx: Transaction, ctx: ServiceContext) -> int:
    """Sends out what is due; how many."""
    found = await notifications.due(tx, MOST)
    settings, _ = await notification_settings.get(tx)
    for told in found:
        route = settings.route(told.route)
        if route is None:
            why = "the route was removed" if told.route else "no route is set; it is only recorded"
            await notifications.save(tx, replace(told, state=State.SUPPRESSED, detail=why))
            continue
        loud = tx.now if told.urgent else loud_again(settings.hours_of(route), tx.now)
        turn = escalation.first(route, tx.now)
        if loud > tx.now:
            await notifications.save(tx, replace(told, due_at=loud, detail="quiet hours"))
        elif turn:
            await _tell(tx, ctx, told, turn)
    return len(found)


async def settle(tx: Transaction) -> int:
    """Asks nobody further about incidents that have ended; how many messages that were."""
    over = await _over(tx, await notifications.ended(tx, MOST))
    for told in over:
        what = "the incident has" if len(told.incidents) == 1 else "its incidents have"
        await notifications.save(tx, replace(told, act_by=None, detail=f"{what} ended; nobody is asked any more"))
    return len(over)


async def _over(tx: Transaction, found: Sequence[Notification]) -> list[Notification]:
    """Those whose every incident has ended."""
    ends = await notifications.ends(tx, {incident for told in found for incident in told.incidents})
    return [told for told in found if escalation.over(told.batch, told.incidents, ends, named=notifications.NAMED)]


async def escalate(tx: Transaction, ctx: ServiceContext) -> int:
    """Tells the next step of what nobody answered; how many."""
    overdue = await notifications.overdue(tx, MOST)
    # What has ended since it was settled last is settled the next time.
    over = {told.id for told in await _over(tx, overdue)}
    found = [told for told in overdue if told.id not in over]
    settings, _ = await notification_settings.get(tx)
    for told in found:
        route = settings.route(told.route)
        if route is None or told.state not in escalation.OPEN:
            await notifications.save(tx, replace(told, act_by=None))
            continue
        hours = settings.hours_of(route)
        if not escalation.overdue(told.act_by, hours, tx.now, urgent=told.urgent):
            await notifications.save(tx, replace(told, act_by=loud_again(hours, tx.now)))
            continue
        await _go_further(tx, ctx, told, route)
    return len(found)


async def _go_further(tx: Transaction, ctx: ServiceContext, told: Notification, route: Route) -> None:
    turn = escalation.following(route, told.step, tx.now)
    tx.record(wire.escalated(told, turn))
    if turn.step:
        await _tell(tx, ctx, told, turn)
    else:
        await notifications.save(tx, replace(told, act_by=None, detail="nobody answered, and nobody is left to ask"))


async def _tell(tx: Transaction, ctx: ServiceContext, told: Notification, turn: Turn) -> None:
    assert turn.step is not None
    detail = f"step {turn.number + 1}: {', '.join(turn.step.channels)}"
    moved = replace(told, state=State.SENDING, step=turn.number, act_by=turn.act_by, detail=detail)
    await notifications.save(tx, moved)
    ids = [new_id() for _ in turn.step.channels]
    await deliveries.begin(tx, told.id, turn.number, ids, turn.step.channels)
    for id_ in ids:
        await send(tx, SCHEMA, DELIVER, id_, {}, key=f"{DELIVER} {id_}", database=ctx.database)
