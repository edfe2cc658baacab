"""Queries to ingest before a transaction: whether the cause still stands, and what the plugin runs."""

from libs.common import names
from libs.common.errors import NotFound
from prunella.v1 import ingest_pb2
from services.patcher.attempt import Attempt
from services.patcher.context import ServiceContext

QUERY_TIMEOUT = 5.0
PAGE, MOST_PAGES = 500, 400
FLEET_COUNT_VALID, MOST_PACKAGES = 10.0, 10_000
# An incident that is neither of these has ended, or belongs to a person.
LIVE_STATES = frozenset({"open", "in_progress"})


async def is_current(ctx: ServiceContext, incident: str, number: int) -> bool:
    """Whether an incident is still in this round and nobody else has taken over. Raises Unavailable.

    An attempt without an incident is a rollout's, which calls it off itself.
    """
    if not incident:
        return True
    request = ingest_pb2.GetIncidentRequest(name=names.incident(incident))
    try:
        found = (await ctx.ingest.GetIncident(request, timeout=QUERY_TIMEOUT)).incident
    except NotFound:
        return False
    return found.state in LIVE_STATES and found.round == number


async def get_incident(ctx: ServiceContext, incident: str) -> ingest_pb2.Incident:
    """The incident as ingest knows it. Raises NotFound or Unavailable."""
    request = ingest_pb2.GetIncidentRequest(name=names.incident(incident))
    return (await ctx.ingest.GetIncident(request, timeout=QUERY_TIMEOUT)).incident


async def list_plugins(ctx: ServiceContext, package: str) -> list[ingest_pb2.Plugin]:
    """Every plugin of a package that has not left, newest first. Raises Unavailable."""
    found: list[ingest_pb2.Plugin] = []
    token = ""
    for _ in range(MOST_PAGES):
        request = ingest_pb2.ListPluginsRequest(package=package, page_size=PAGE, page_token=token)
        page = await ctx.ingest.ListPlugins(request, timeout=QUERY_TIMEOUT)
        found += [plugin for plugin in page.plugins if plugin.state != "retired"]
        token = page.next_page_token
        if not token:
            break
    return found


async def get_plugin(ctx: ServiceContext, plugin: str) -> ingest_pb2.Plugin | None:
    """The plugin as ingest knows it, None when it does not. Raises Unavailable."""
    request = ingest_pb2.GetPluginRequest(name=names.plugin(plugin))
    try:
        return (await ctx.ingest.GetPlugin(request, timeout=QUERY_TIMEOUT)).plugin
    except NotFound:
        return None


async def count_plugins(ctx: ServiceContext, package: str) -> int | None:
    """How many active plugins a package has; None when that was asked seconds ago. Raises Unavailable."""
    now = ctx.clock.monotonic()
    if ctx.fleet_counted.get(package, -FLEET_COUNT_VALID) + FLEET_COUNT_VALID > now:
        return None
    request = ingest_pb2.GetFleetRequest(package=package)
    found = await ctx.ingest.GetFleet(request, timeout=QUERY_TIMEOUT)
    if len(ctx.fleet_counted) > MOST_PACKAGES:
        ctx.fleet_counted.clear()
    ctx.fleet_counted[package] = now
    return found.plugins


async def cancel_reason(ctx: ServiceContext, attempt: Attempt) -> str:
    """Why an attempt that waited has nothing to go on for, empty when it has. Raises Unavailable."""
    plugin = await get_plugin(ctx, attempt.plugin)
    if plugin is not None and (
        plugin.release != attempt.from_release or (attempt.other_slot and plugin.generation != attempt.from_generation)
    ):
        return "the plugin runs another release now"
    if plugin is None or plugin.state != "active":
        return "its cause is gone"
    # A person may want it just because the incident was handed to people.
    if not attempt.author and not await is_current(ctx, attempt.incident, attempt.round):
        return "its cause is gone"
    return ""
