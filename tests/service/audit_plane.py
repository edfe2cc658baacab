"""What tests of the audit log share: facts told as ingest tells them, the log's own duties done by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from deploy.local.testing import BackingServices, Plane
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.facts import fact
from libs.common.names import new_id
from libs.common.telemetry import use_traceparent
from prunella.v1 import audit_pb2
from prunella.v1 import events_pb2 as facts
from prunella.v1.ops_pb2_grpc import OpsServiceStub
from services.ops.context import ServiceContext
from services.ops.sweeps.audit import log_facts, sign_checkpoint

TRACE = "0af7651916cd43dd8448eb211c80319c"


def ops(plane: Plane) -> Any:
    return OpsServiceStub(plane.channel("ops"))


def health(plugin: str = "", *, after: str = "down", actor: str = "", reason: str = "no beat") -> facts.Event:
    changed = facts.PluginHealthChanged(**{"from": "healthy", "to": after}, release="1.2.0")
    return fact("ingest", changed, reason=reason, plugin=plugin or new_id(), actor=actor)


async def tell(backing: BackingServices, *events: facts.Event) -> None:
    """Tells facts in one transaction of ingest's role."""
    database = Database(backing.url("ingest"), clock=SystemClock(), pool_size=1)

    async def work(tx: Any) -> None:
        for event in events:
            tx.record(event)

    try:
        with use_traceparent(f"00-{TRACE}-b7ad6b7169203331-01"):
            await database.transaction(work)
    finally:
        await database.close()


async def log(ctx: ServiceContext) -> None:
    """Does the duties of the audit log once, now."""
    await log_facts(ctx, ctx.clock.now())
    await sign_checkpoint(ctx, ctx.clock.now())


@asynccontextmanager
async def superuser(backing: BackingServices) -> AsyncIterator[Any]:
    """A connection that no trigger and no right holds back."""
    import asyncpg

    connection = await asyncpg.connect(backing.url())
    try:
        await connection.execute("SET session_replication_role = replica")
        yield connection
    finally:
        await connection.close()


async def exported(plane: Plane, **request: Any) -> list[str]:
    """The lines of an export."""
    answers = ops(plane).ExportAudit(audit_pb2.ExportAuditRequest(**request), timeout=20)
    text = "".join([answer.lines async for answer in answers])
    return text.splitlines(keepends=True)


async def findings(plane: Plane, **request: Any) -> Sequence[audit_pb2.AuditFinding]:
    """What a comparison of the log with the facts finds."""
    answers = ops(plane).CheckAudit(audit_pb2.CheckAuditRequest(**request), timeout=20)
    return [found async for answer in answers for found in answer.findings]


def now() -> datetime:
    return datetime.now(UTC)
