"""What the patcher asks ingest before a transaction: whether the cause still stands, and what the plugin runs."""

from libs.common import names
from libs.common.errors import NotFound
from prunella.v1 import ingest_pb2
from services.patcher.doors.given import Doors

QUESTION_TIMEOUT = 5.0
# An incident that is neither of these has ended, or belongs to a person.
STANDING = frozenset({"open", "in_progress"})


async def stands(doors: Doors, incident: str, number: int) -> bool:
    """Whether an incident is still in this round and nobody else has taken over. Raises Unavailable.

    An attempt without an incident is a rollout's, which calls it off itself.
    """
    if not incident:
        return True
    request = ingest_pb2.GetIncidentRequest(name=names.incident(incident))
    try:
        found = (await doors.ingest.GetIncident(request, timeout=QUESTION_TIMEOUT)).incident
    except NotFound:
        return False
    return found.state in STANDING and found.round == number


async def plugin_of(doors: Doors, plugin: str) -> ingest_pb2.Plugin | None:
    """The plugin as ingest knows it, None when it does not. Raises Unavailable."""
    request = ingest_pb2.GetPluginRequest(name=names.plugin(plugin))
    try:
        return (await doors.ingest.GetPlugin(request, timeout=QUESTION_TIMEOUT)).plugin
    except NotFound:
        return None
