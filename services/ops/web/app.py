"""Everything ops answers over HTTP, put together."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette

from libs.common.access import passes
from libs.common.connect import ConnectHandler, methods, openapi
from libs.common.http import health_routes
from libs.common.rpc import Server
from prunella.v1 import ops_pb2
from services.ops.forward import services
from services.ops.receiver.app import routes as receiver
from services.ops.receiver.span_buffer import SpanBuffer
from services.ops.web import legacy_routes
from services.ops.web.openapi import PATHS

OWN = ops_pb2.DESCRIPTOR.services_by_name["OpsService"]
# A release in base64 is larger than what else people send.
LARGER = {"/prunella.v1.PatcherService/PublishRelease": 24 * 1024 * 1024}


def door(server: Server) -> ConnectHandler:
    """The Connect protocol for what people may ask and tell."""
    known = methods([OWN]) | methods(services().values(), passes)
    return ConnectHandler(server.in_process(), known, larger=LARGER)


def app(server: Server, buffer: SpanBuffer, forward: Callable[[bytes], None]) -> Starlette:
    """The application; `forward` hands spans to another collector and never waits."""
    opened = door(server)
    return Starlette(
        routes=[
            *opened.routes(),
            *legacy_routes.routes(opened),
            openapi.route("Prunella: what people ask and tell", opened.methods.values(), PATHS),
            *receiver(buffer, forward),
            *health_routes(server),
        ]
    )
