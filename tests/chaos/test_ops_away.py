"""ops is killed under load, stays away, and comes back: nothing is missing in what it shows, nothing is sent twice but
what was on its way when it was killed, and that under the id it had.

PRUNELLA_AWAY_SECONDS says how long it is away; a few seconds when nobody says.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deploy.demo import kpi_comparison
from deploy.local.health import until_serving
from deploy.local.processes import starter, usable_starter
from deploy.local.testing import BackingServices, Plane, until
from deploy.local.watch import ServiceWatch
from libs.common.bus import fact
from libs.common.facts import fact_name
from libs.common.names import new_id
from prunella.v1 import events_pb2 as facts
from prunella.v1 import kpis_pb2, ops_pb2
from tests.service.audit_plane import findings
from tests.service.notification_plane import NotificationPlane, escalated

AWAY = float(os.environ.get("PRUNELLA_AWAY_SECONDS") or 3.0)
BEFORE, AFTER = 2.0, 2.0
# Stories begun in a second, two facts each; one of four ends at a person.
STORIES, ASKED = 25, 4
SERVING = 30.0
MISSING = """
SELECT f.fact FROM bus.facts f
WHERE NOT EXISTS (SELECT 1 FROM ops.timeline t WHERE t.event_id = f.id AND t.position IS NOT NULL)
"""
UNLOGGED = """
SELECT f.fact FROM bus.facts f WHERE NOT EXISTS (SELECT 1 FROM ops.audit_entries e WHERE e.event_id = f.id)
"""


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(int(180 + 10 * AWAY))
async def test_after_ops_was_killed_under_load_everything_is_shown_and_sent_once(backing: BackingServices) -> None:
    plane = Plane(backing, names=())
    await plane.start()
    people = await NotificationPlane(plane).start()
    over = asyncio.Event()
    try:
        async with process(backing, plane) as ops:
            await people.set()
            load = asyncio.create_task(stories(people, over))
            await asyncio.sleep(BEFORE)
            await ops.hold(signal.SIGKILL)
            on_its_way = {one.id for one in await plane.sql("SELECT id FROM ops.deliveries WHERE state <> 'sent'")}
            await asyncio.sleep(AWAY)
            ops.release()
            await until_serving(plane.addresses["ops"])
            await asyncio.sleep(AFTER)
            over.set()
            told = await load
            await whole(people, told)
            sent_once(people, told, on_its_way)
    finally:
        over.set()
        await people.stop()
        await plane.stop()


@asynccontextmanager
async def process(backing: BackingServices, plane: Plane) -> AsyncIterator[ServiceWatch]:
    """ops as a process of its own, serving."""
    begun = await usable_starter(await starter(backing.folder / "forkserver.log"))

    async def begins() -> Any:
        return begun

    environ = {**os.environ, **plane.settings("ops")}
    watch = ServiceWatch("ops", "services.ops", environ, backing.folder / "ops.log", begins, lambda _line: None)
    watch.begin()
    try:
        await asyncio.wait_for(until_serving(plane.addresses["ops"]), SERVING)
        yield watch
    finally:
        await watch.stop()
        await begun.stop()


async def stories(people: NotificationPlane, over: asyncio.Event) -> list[facts.Event]:
    """Incidents that open and end, one after the other, until it is over; every fact that was told."""
    told: list[facts.Event] = []
    while not over.is_set():
        about: Any = {"plugin": new_id(), "incident": new_id(), "merchant": "m1"}
        began = facts.IncidentOpened(type="webhook_fail_rate", severity=facts.SEVERITY_MEDIUM, round=1)
        began.first_bad_beat_time.GetCurrentTime()
        if len(told) // 2 % ASKED == 0:
            end = escalated(about["plugin"], incident=about["incident"])
        else:
            end = fact("ingest", facts.IncidentMitigated(round=1), reason="healed", **about)
        pair = [fact("ingest", began, reason="it broke", **about), end]
        await people.tell(*pair)
        told += pair
        await asyncio.sleep(1 / STORIES)
    return told


async def whole(people: NotificationPlane, told: list[facts.Event]) -> None:
    """Timeline, stories, figures and audit log hold all of it, each fact once, and every message is sent."""
    counted = Counter(map(fact_name, told))
    asked = asking(told)

    async def sent() -> bool:
        found = await people.plane.sql("SELECT state, facts, repeats FROM ops.notifications")
        return sum(one.facts for one in found) >= len(asked) and all(one.state == "sent" for one in found)

    async def nothing(statement: str) -> bool:
        return not await people.plane.sql(statement)

    within = 60 + 2 * AWAY
    await until(lambda: nothing(MISSING), within, what="the timeline has every fact")
    await until(sent, within, what="every message is sent")
    await until(lambda: nothing(UNLOGGED), within, what="the audit log has every fact")
    assert set(await shown(people)) == {event.id for event in told}
    kpis = await people.ops.GetKpis(kpis_pb2.GetKpisRequest(), timeout=10)
    assert kpi_comparison.differences(kpis, counted) == []
    assert await findings(people.plane) == []


def sent_once(people: NotificationPlane, told: list[facts.Event], on_its_way: set[str]) -> None:
    """Both receivers got each message once; twice only what was on its way when ops was killed."""
    posts = {post.headers["webhook-id"]: post.json["data"]["facts"] for post in people.hook.posts}
    arrived = Counter(post.headers["webhook-id"] for post in people.hook.posts)
    mails = Counter(mail["Message-ID"].strip("<").partition("@")[0] for _, mail in people.mail.mails)
    assert sum(posts.values()) == len(asking(told))
    assert len(arrived) == len(mails)
    for id_, times in (arrived + mails).items():
        assert times == 1 or (times == 2 and id_ in on_its_way), f"{id_} came {times} times"


def asking(told: list[facts.Event]) -> set[str]:
    """The facts that a person is told of."""
    return {event.id for event in told if fact_name(event) == "incident_escalated"}


async def shown(people: NotificationPlane) -> list[str]:
    """The ids of all facts of incidents in the timeline as people page through it; each once."""
    found: list[str] = []
    request = ops_pb2.ListTimelineRequest(page_size=500)
    while True:
        answer = await people.ops.ListTimeline(request, timeout=10)
        found += [one.event.id for one in answer.entries if fact_name(one.event).startswith("incident_")]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert len(found) == len(set(found))
    return found
