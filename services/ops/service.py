"""ops put together: nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import grpc

from libs.common import rpc
from libs.common.clock import Clock
from libs.common.http import HttpServer
from libs.common.runtime import Service
from libs.common.runtime.assembly import assemble
from prunella.v1 import ops_pb2_grpc
from services.ops.channels.delivery import ChannelSender
from services.ops.context import SCHEMA, ServiceContext, Settings
from services.ops.errands.deliver import RUNNERS
from services.ops.errands.signing_key import SigningKey
from services.ops.errands.span_forwarding import SpanForwarder
from services.ops.errands.uptime_probes import UptimeProbes
from services.ops.forward import Forwarder, passed, services
from services.ops.handlers import OpsHandlers
from services.ops.reactions import REACTIONS
from services.ops.receiver.span_buffer import SpanBuffer
from services.ops.sweeps import SWEEPS
from services.ops.web.app import app

SERVICES = ("ingest", "decider", "patcher", "queue", SCHEMA)
# The largest that any service takes, which is a release for patcher.
LARGEST_MESSAGE = 18 * 1024 * 1024


def forwarders(channel: Callable[[str], grpc.aio.Channel | None]) -> list[rpc.Servicer]:
    """What passes on, one for each service."""
    methods = passed()
    made: list[rpc.Servicer] = []
    for name, service in services().items():
        forwarder = Forwarder(name, methods, partial(channel, name))
        made.append((_add, forwarder, service.full_name))
    return made


def _add(forwarder: Forwarder, server: grpc.aio.Server) -> None:
    server.add_generic_rpc_handlers((forwarder,))


def build(settings: Settings, clock: Clock) -> Service:
    """ops, not started."""
    base = assemble(SCHEMA, settings, clock)
    sender = ChannelSender(clock, settings.key)
    ctx = ServiceContext(
        *base.shared,
        settings=settings,
        signing_key=SigningKey(settings.state, settings.audit_key),
        sender=sender,
    )
    sweeps = base.sweeps(SWEEPS, ctx)
    ctx.place_soon = lambda: sweeps.trigger("place_facts")
    ctx.sibling = base.channel_if_known
    buffer, forwarder = SpanBuffer(base.database), SpanForwarder(settings.otel_endpoint)
    add = ops_pb2_grpc.add_OpsServiceServicer_to_server
    servicers = [(add, OpsHandlers(ctx), "prunella.v1.OpsService"), *forwarders(base.channel_if_known)]
    server = base.server(servicers, rpc.Server, max_message=LARGEST_MESSAGE)
    # Siblings send spans as soon as they live, so this opens first and closes last.
    before = [buffer, forwarder, HttpServer(app(server, buffer, forwarder), settings.http_listen)]
    parts = [
        base.consumer(REACTIONS, ctx),
        sender,
        base.errands(RUNNERS, ctx, workers=32),
        sweeps,
        UptimeProbes(base.database, SERVICES, base.channel_if_known),
    ]
    return base.service(ctx, server, parts, before)
