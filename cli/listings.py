"""The lists of the plane, page by page: one line for each collection.

Rule: entries come newest first (error reports: last seen first); messages are imported when a list is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

from cli.plane_client import TIMEOUT, request

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

MOST = 5000  # newest entries among which a shortened id is looked up
PAGE = 500


class Listing(Protocol):
    """Entries of one collection, up to `limit` (0: all), with the filters of its request."""

    def __call__(self, plane: PlaneClient, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]: ...


async def pages(plane: PlaneClient, rpc: str, field: str, limit: int, **filters: Any) -> AsyncIterator[Any]:
    """Entries of a list, page by page, up to `limit` (0: all)."""
    call, asked = plane.method(rpc), request(rpc, **filters)
    left = limit or MOST * 1000
    while left > 0:
        asked.page_size = min(left, PAGE)
        page = await call(asked, timeout=TIMEOUT)
        for entry in getattr(page, field):
            yield entry
            left -= 1
        asked.page_token = page.next_page_token
        if not page.next_page_token:
            return


def _listing(rpc: str, field: str) -> Listing:
    def listing(plane: PlaneClient, limit: int = MOST, **filters: Any) -> AsyncIterator[Any]:
        return pages(plane, rpc, field, limit, **filters)

    return listing


plugins = _listing("ingest.ListPlugins", "plugins")
incidents = _listing("ingest.ListIncidents", "incidents")
storms = _listing("ingest.ListStorms", "storms")
decisions = _listing("decider.ListDecisions", "decisions")
attempts = _listing("patcher.ListAttempts", "attempts")
releases = _listing("patcher.ListReleases", "releases")
configurations = _listing("patcher.ListConfigurations", "configurations")
rollouts = _listing("patcher.ListRollouts", "rollouts")
policy_changes = _listing("patcher.ListPolicyChanges", "changes")
reports = _listing("queue.ListErrorReports", "reports")
tasks = _listing("queue.ListTasks", "tasks")
proposals = _listing("queue.ListProposals", "proposals")
entries = _listing("ops.ListTimeline", "entries")
audit = _listing("ops.ListAudit", "entries")
stories = _listing("ops.ListStories", "stories")
notifications = _listing("ops.ListNotifications", "notifications")
dead_letters = _listing("ops.ListDeadLetters", "dead_letters")
