"""Everything ingest answers over HTTP, put together."""

from __future__ import annotations

from starlette.applications import Starlette

from libs.common.connect import Door, methods, openapi
from libs.common.http import plain
from libs.common.rpc import Server
from prunella.v1 import agent_pb2
from services.ingest.doors import Doors
from services.ingest.http import described, errors
from services.ingest.http import plain as seeds

GATEWAY = agent_pb2.DESCRIPTOR.services_by_name["AgentGateway"]


def app(doors: Doors, server: Server) -> Starlette:
    """The application: the agents' gateway without its stream, error reports, health and metrics."""
    door = Door(server.inside(), methods([GATEWAY]))
    return Starlette(
        routes=[
            *door.routes(),
            *seeds.routes(doors, door),
            *errors.routes(doors),
            openapi.route("Prunella: what agents say without gRPC", door.methods.values(), described.PATHS),
            *plain(server),
        ]
    )
