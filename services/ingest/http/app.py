"""Everything ingest answers over HTTP, put together."""

from __future__ import annotations

from starlette.applications import Starlette

from libs.common.connect import ConnectHandler, methods, openapi
from libs.common.http import health_routes
from libs.common.rpc import Server
from prunella.v1 import agent_pb2
from services.ingest.context import ServiceContext
from services.ingest.http import described, errors
from services.ingest.http import plain as seeds

GATEWAY = agent_pb2.DESCRIPTOR.services_by_name["AgentGateway"]


def app(ctx: ServiceContext, server: Server) -> Starlette:
    """The application: the agents' gateway without its stream, error reports, health and metrics."""
    door = ConnectHandler(server.in_process(), methods([GATEWAY]))
    return Starlette(
        routes=[
            *door.routes(),
            *seeds.routes(ctx, door),
            *errors.routes(ctx),
            openapi.route("Prunella: what agents say without gRPC", door.methods.values(), described.PATHS),
            *health_routes(server),
        ]
    )
