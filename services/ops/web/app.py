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
from services.ops.receiver.intake import Intake
from services.ops.web import described, seeds

OWN = ops_pb2.DESCRIPTOR.services_by_name["OpsService"]
# A release in base64 is larger than what else people send.
LARGER = {"/prunella.v1.PatcherService/PublishRelease": 24 * 1024 * 1024}


def door(server: Server) -> ConnectHandler:
    """The Connect protocol for what people may ask and tell."""
    known = methods([OWN]) | methods(services().values(), passes)
    return ConnectHandler(server.in_process(), known, larger=LARGER)


def app(server: Server, intake: Intake, pass_on: Callable[[bytes], None]) -> Starlette:
    """The application; `pass_on` hands spans to another collector and never waits."""
    opened = door(server)
    return Starlette(
        routes=[
            *opened.routes(),
            *seeds.routes(opened),
            openapi.route("Prunella: what people ask and tell", opened.methods.values(), described.PATHS),
            *receiver(intake, pass_on),
            *health_routes(server),
        ]
    )
