"""Ids as people type them: whole, by a unique beginning or end, or by a plugin's label.

Ids of one minute begin alike (UUIDv7 begins with the time), so lists show the last eight digits, which differ.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from cli.plane import TIMEOUT

if TYPE_CHECKING:
    from cli.plane import Plane

WHOLE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHORTEST = 4
MOST = 5000  # newest ones among which a shortened id is looked up
PAGE = 500
# Collections that people call otherwise: their name for one, and the command that lists them.
SPOKEN = {
    "errorReports": ("error", "errors"),
    "tasks": ("task", "queue list"),
    "rollouts": ("rollout", "rollout list"),
    "deadLetters": ("dead letter", "dead-letters"),
}


def short(name: str) -> str:
    """The end of an id or name, which is enough to type."""
    return name.rpartition("/")[2][-8:]


def bare(collection: str, text: str) -> str:
    """What was typed, without the collection and without the dots that lists put before the end of an id."""
    return text.strip().removeprefix(f"{collection}/").strip("…").rstrip(".").lower()


def pick(collection: str, typed: str, names: Iterable[str]) -> str:
    """The one id that begins or ends with what was typed. Raises NotFound or Invalid."""
    from libs.common.errors import Invalid, NotFound

    what, command = SPOKEN.get(collection, (collection.removesuffix("s"), collection))
    if len(typed) < SHORTEST:
        raise Invalid(f"{typed!r} is too short for an id; type at least {SHORTEST} digits of it", reason="SHORT_ID")
    found = sorted({id_ for name in names if _fits(id_ := name.rpartition("/")[2], typed)})
    if not found:
        raise NotFound(f"no {what} begins or ends with {typed!r}; see: prunella {command}", reason="UNKNOWN_ID")
    if len(found) > 1:
        some = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise Invalid(f"{typed!r} fits {len(found)} {what}s: {some}; type more of it", reason="AMBIGUOUS_ID")
    return found[0]


def _fits(id_: str, typed: str) -> bool:
    return id_.startswith(typed) or id_.endswith(typed)


async def plugin(plane: Plane, typed: str) -> str:
    """The id of a plugin, named by label, id or part of it. Raises NotFound or Invalid."""
    from libs.common.errors import Invalid, NotFound
    from prunella.v1 import ingest_pb2

    text = bare("plugins", typed)
    if WHOLE.fullmatch(text):
        return text
    label = typed.strip().removeprefix("plugins/")
    try:
        request = ingest_pb2.GetPluginRequest(name=f"plugins/{label}")
        found = await plane.ingest.GetPlugin(request, timeout=TIMEOUT)
        return found.plugin.name.rpartition("/")[2]
    except (NotFound, Invalid):
        return pick("plugins", text, [entry.name async for entry in plugins(plane)])


async def optional_plugin(plane: Plane, typed: str) -> str:
    """Like `plugin`, and empty for an empty filter."""
    return await plugin(plane, typed) if typed else ""


async def incident(plane: Plane, typed: str) -> str:
    """The id of an incident. Raises NotFound or Invalid."""
    text = bare("incidents", typed)
    return text if WHOLE.fullmatch(text) else pick("incidents", text, [i.name async for i in incidents(plane)])


async def decision(plane: Plane, typed: str) -> str:
    """The id of a decision. Raises NotFound or Invalid."""
    text = bare("decisions", typed)
    return text if WHOLE.fullmatch(text) else pick("decisions", text, [d.name async for d in decisions(plane)])


async def attempt(plane: Plane, typed: str) -> str:
    """The id of an attempt. Raises NotFound or Invalid."""
    text = bare("attempts", typed)
    return text if WHOLE.fullmatch(text) else pick("attempts", text, [a.name async for a in attempts(plane)])


async def report(plane: Plane, typed: str) -> str:
    """The id of an error report. Raises NotFound or Invalid."""
    text = bare("errorReports", typed)
    return text if WHOLE.fullmatch(text) else pick("errorReports", text, [r.name async for r in reports(plane)])


async def task(plane: Plane, typed: str) -> str:
    """The id of a task. Raises NotFound or Invalid."""
    text = bare("tasks", typed)
    return text if WHOLE.fullmatch(text) else pick("tasks", text, [t.name async for t in tasks(plane)])


async def proposal(plane: Plane, typed: str) -> str:
    """The id of a proposal. Raises NotFound or Invalid."""
    text = bare("proposals", typed)
    return text if WHOLE.fullmatch(text) else pick("proposals", text, [p.name async for p in proposals(plane)])


async def rollout(plane: Plane, typed: str) -> str:
    """The id of a rollout. Raises NotFound or Invalid."""
    text = bare("rollouts", typed)
    return text if WHOLE.fullmatch(text) else pick("rollouts", text, [r.name async for r in rollouts(plane)])


async def storm(plane: Plane, typed: str) -> str:
    """The id of a storm. Raises NotFound or Invalid."""
    text = bare("storms", typed)
    return text if WHOLE.fullmatch(text) else pick("storms", text, [s.name async for s in storms(plane)])


async def notification(plane: Plane, typed: str) -> str:
    """The id of a notification. Raises NotFound or Invalid."""
    text = bare("notifications", typed)
    return text if WHOLE.fullmatch(text) else pick("notifications", text, [n.name async for n in notifications(plane)])


async def labels(plane: Plane, ids: Iterable[str]) -> dict[str, str]:
    """What people call these plugins; the end of the id for one that cannot be asked."""
    from libs.common.errors import Problem
    from prunella.v1 import ingest_pb2

    wanted = sorted({id_ for id_ in ids if id_})
    bound = asyncio.Semaphore(16)

    async def ask(id_: str) -> str:
        async with bound:
            try:
                request = ingest_pb2.GetPluginRequest(name=f"plugins/{id_}")
                answer = await plane.ingest.GetPlugin(request, timeout=TIMEOUT)
            except Problem:
                return f"…{short(id_)}"
            return answer.plugin.label or f"…{short(id_)}"

    return dict(zip(wanted, await asyncio.gather(*map(ask, wanted)), strict=True))


async def pages(call: Any, request: Any, field: str, limit: int) -> AsyncIterator[Any]:
    """Entries of a list, page by page, up to `limit` (0: all)."""
    left = limit or MOST * 1000
    while left > 0:
        request.page_size = min(left, PAGE)
        page = await call(request, timeout=TIMEOUT)
        for entry in getattr(page, field):
            yield entry
            left -= 1
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


def plugins(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Plugins, newest first."""
    from prunella.v1.ingest_pb2 import ListPluginsRequest

    return pages(plane.ingest.ListPlugins, ListPluginsRequest(**filters), "plugins", limit)


def incidents(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Incidents, newest first."""
    from prunella.v1.ingest_pb2 import ListIncidentsRequest

    return pages(plane.ingest.ListIncidents, ListIncidentsRequest(**filters), "incidents", limit)


def decisions(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Decisions, newest first."""
    from prunella.v1.decider_pb2 import ListDecisionsRequest

    return pages(plane.decider.ListDecisions, ListDecisionsRequest(**filters), "decisions", limit)


def attempts(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Attempts, newest first."""
    from prunella.v1.patcher_pb2 import ListAttemptsRequest

    return pages(plane.patcher.ListAttempts, ListAttemptsRequest(**filters), "attempts", limit)


def releases(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Releases, newest first."""
    from prunella.v1.patcher_pb2 import ListReleasesRequest

    return pages(plane.patcher.ListReleases, ListReleasesRequest(**filters), "releases", limit)


def entries(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """The timeline, newest first."""
    from prunella.v1.ops_pb2 import ListTimelineRequest

    return pages(plane.ops.ListTimeline, ListTimelineRequest(**filters), "entries", limit)


def reports(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Error reports, last seen first."""
    from prunella.v1.queue_pb2 import ListErrorReportsRequest

    return pages(plane.queue.ListErrorReports, ListErrorReportsRequest(**filters), "reports", limit)


def tasks(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Tasks of the resolution queue, newest first."""
    from prunella.v1.queue_pb2 import ListTasksRequest

    return pages(plane.queue.ListTasks, ListTasksRequest(**filters), "tasks", limit)


def proposals(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """What programs ask people for, newest first."""
    from prunella.v1.queue_pb2 import ListProposalsRequest

    return pages(plane.queue.ListProposals, ListProposalsRequest(**filters), "proposals", limit)


def rollouts(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Rollouts, newest first."""
    from prunella.v1.patcher_pb2 import ListRolloutsRequest

    return pages(plane.patcher.ListRollouts, ListRolloutsRequest(**filters), "rollouts", limit)


def storms(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Storms, newest first."""
    from prunella.v1.ingest_pb2 import ListStormsRequest

    return pages(plane.ingest.ListStorms, ListStormsRequest(**filters), "storms", limit)


def notifications(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Messages to people, newest first."""
    from prunella.v1.notification_pb2 import ListNotificationsRequest

    return pages(plane.ops.ListNotifications, ListNotificationsRequest(**filters), "notifications", limit)


def configurations(plane: Plane, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
    """Configurations, newest first."""
    from prunella.v1.patcher_pb2 import ListConfigurationsRequest

    return pages(plane.patcher.ListConfigurations, ListConfigurationsRequest(**filters), "configurations", limit)
