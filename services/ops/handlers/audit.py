"""Someone asked: what the audit log says, and what proves it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from libs.common import paging
from libs.common.database import Transaction
from libs.common.errors import Invalid, NotFound, Refused
from prunella.v1 import audit_pb2, ops_pb2_grpc
from services.ops import wire
from services.ops.audit import export, merkle
from services.ops.audit.merkle import Range
from services.ops.context import ServiceContext
from services.ops.store import audit as store
from services.ops.sweeps.audit_check import START, Comparison, Finding, unlogged

END = 2**62
EXPORTED = 500  # entries in one message at most, and characters after which it goes out
CHARACTERS = 512 * 1024
COMPARED = 1000


class AuditHandlers(ops_pb2_grpc.OpsServiceServicer):
    """The audit log's part of OpsService."""

    ctx: ServiceContext

    async def ListAudit(  # noqa: N802 - the method's name on the wire
        self, request: audit_pb2.ListAuditRequest, _context: Any
    ) -> audit_pb2.ListAuditResponse:
        """Entries, newest first."""
        wanted = wire.audit_filter(request)
        page = paging.page(request, asdict(wanted), int)
        (before,) = page.after or [END]
        async with self.ctx.database.reading() as reading:
            rows = await store.newest(reading, wanted, before=before, limit=page.limit)
        rows, token = page.cut(rows, lambda row: [row.index])
        return audit_pb2.ListAuditResponse(entries=[wire.audit_entry(row) for row in rows], next_page_token=token)

    async def GetAuditCheckpoint(  # noqa: N802
        self, request: audit_pb2.GetAuditCheckpointRequest, _context: Any
    ) -> audit_pb2.GetAuditCheckpointResponse:
        """The latest checkpoint, or the one of a size; and the keys."""
        async with self.ctx.database.reading() as reading:
            log = await store.log(reading)
            signed = await _checkpoint(reading, log, request.size)
            keys = await store.keys(reading)
        checkpoint = wire.audit_checkpoint(log.origin, signed)
        return audit_pb2.GetAuditCheckpointResponse(checkpoint=checkpoint, keys=keys)

    async def ProveAudit(  # noqa: N802
        self, request: audit_pb2.ProveAuditRequest, _context: Any
    ) -> audit_pb2.ProveAuditResponse:
        """A proof that an entry is in the log, or that the log only grew."""
        claim = request.WhichOneof("claim")
        if claim is None:
            raise Invalid(
                "say what to prove: index or event_id of an entry, or old_size of a tree",
                reason="NO_CLAIM",
                field="claim",
            )
        async with self.ctx.database.reading() as reading:
            log = await store.log(reading)
            size = await _size(reading, log, request.size)
            made = audit_pb2.ProveAuditResponse(size=size)
            if claim == "old_size":
                await _consistency(reading, made, request.old_size)
            else:
                leaf = await _leaf(reading, log, request)
                await _inclusion(reading, made, leaf)
            signed = await store.checkpoint_of(reading, size)
        if signed:
            made.checkpoint.CopyFrom(wire.audit_checkpoint(log.origin, signed))
        return made

    async def ExportAudit(  # noqa: N802
        self, request: audit_pb2.ExportAuditRequest, _context: Any
    ) -> AsyncIterator[audit_pb2.ExportAuditResponse]:
        """The lines of an export, from an entry to a checkpoint."""
        async with self.ctx.database.reading() as reading:
            log = await store.log(reading)
            size = (await _checkpoint(reading, log, request.size)).size
            first = request.from_index
            _check_first(first, size)
            peaks = await _intact(store.peaks(reading, first))
            keys = tuple(await store.keys(reading))
        header = export.header_line(export.Header(log.origin, first, size, peaks.hashes, keys))
        yield audit_pb2.ExportAuditResponse(lines=header, next_index=first, size=size)
        while first < size:
            async with self.ctx.database.reading() as reading:
                rows = await store.following(reading, first, min(size, first + EXPORTED), EXPORTED)
                checkpoints = await store.checkpoints_between(reading, first, first + EXPORTED)
            if not rows or rows[0].index != first:
                raise _damaged(f"entry {first} is missing")
            signed = {one.size: one.note for one in checkpoints}
            lines, length = list[str](), 0
            for row in rows:
                if row.index != first or length > CHARACTERS:
                    break
                lines.append(export.entry_line(row.index, row.hash, row.entry))
                length, first = length + len(lines[-1]), first + 1
                if first in signed:
                    lines.append(export.checkpoint_line(signed[first]))
            yield audit_pb2.ExportAuditResponse(lines="".join(lines), next_index=first, size=size)

    async def CheckAudit(  # noqa: N802
        self, request: audit_pb2.CheckAuditRequest, _context: Any
    ) -> AsyncIterator[audit_pb2.CheckAuditResponse]:
        """Findings of a comparison of the log with the facts, with how far it is."""
        now = self.ctx.clock.now()
        async with self.ctx.database.reading() as reading:
            log = await store.log(reading)
            _check_first(request.from_index, log.size)
            comparison = await Comparison.begin(reading, request.from_index)
        while not comparison.ended:
            async with self.ctx.database.reading() as reading:
                await comparison.advance(reading, COMPARED)
            yield _compared(comparison, log.size, comparison.take_findings())
        after: tuple[datetime, str] | None = START
        while after:
            async with self.ctx.database.reading() as reading:
                missing, after = await unlogged(reading, after, now)
            yield _compared(comparison, log.size, missing)


async def _checkpoint(reading: Transaction, log: store.Log, size: int) -> store.Checkpoint:
    """The checkpoint of a size, the latest for 0. Raises Invalid or NotFound."""
    _fits(log, size, "size")
    found = await (store.checkpoint_of(reading, size) if size else store.latest_checkpoint(reading))
    if found:
        return found
    if not size:
        raise NotFound(
            "nothing is signed yet; a checkpoint is written each second", reason="NO_CHECKPOINT", field="size"
        )
    near = await store.checkpoint_before(reading, size)
    hint = f"the one before it has {near.size}" if near else "there is none before it"
    raise NotFound(f"no checkpoint of {size} entries is kept; {hint}", reason="NO_CHECKPOINT", field="size")


def _check_first(index: int, size: int) -> None:
    if not 0 <= index <= size:
        message = f"from_index must be from 0 to {size}, the size of what is read, and was {index}"
        raise Invalid(message, reason="BAD_INDEX", field="from_index")


async def _size(reading: Transaction, log: store.Log, size: int) -> int:
    _fits(log, size, "size")
    return size or (await _checkpoint(reading, log, 0)).size


def _fits(log: store.Log, size: int, field: str) -> None:
    if not 0 <= size <= log.size:
        raise Invalid(
            f"{field} must be from 0 to {log.size}, the size of the log, and was {size}",
            reason="SIZE_BEYOND_TREE" if size > 0 else "BAD_SIZE",
            field=field,
        )


async def _leaf(reading: Transaction, log: store.Log, request: audit_pb2.ProveAuditRequest) -> store.Leaf:
    """The entry a proof is asked for. Raises Invalid or NotFound."""
    if request.WhichOneof("claim") == "index":
        if request.index < 0:
            raise Invalid(f"index must not be negative, it was {request.index}", reason="BAD_INDEX", field="index")
        rows = await store.following(reading, request.index, request.index + 1, 1)
        if not rows:
            raise NotFound(
                f"there is no entry {request.index}; the log has {log.size}", reason="UNKNOWN_INDEX", field="index"
            )
        return rows[0]
    try:
        event = str(uuid.UUID(request.event_id))
    except ValueError:
        raise Invalid(
            f"event_id must be a UUID, not {request.event_id[:80]!r}", reason="BAD_ID", field="event_id"
        ) from None
    found = await store.by_event(reading, event)
    if not found:
        raise NotFound(f"no entry tells of the fact {event}", reason="UNKNOWN_EVENT", field="event_id")
    return found


async def _inclusion(reading: Transaction, made: audit_pb2.ProveAuditResponse, leaf: store.Leaf) -> None:
    if leaf.index >= made.size:
        raise Invalid(
            f"entry {leaf.index} is not in the tree of {made.size}; ask for a size above {leaf.index}",
            reason="INDEX_BEYOND_TREE",
            field="size",
        )
    made.root, made.hashes[:] = await _proof(reading, made.size, merkle.inclusion(leaf.index, made.size))
    if not merkle.included(merkle.leaf_hash(leaf.entry), leaf.index, made.size, made.hashes, made.root):
        raise _damaged(f"entry {leaf.index} is not what was logged")
    made.entry.CopyFrom(wire.audit_entry(leaf))


async def _consistency(reading: Transaction, made: audit_pb2.ProveAuditResponse, old: int) -> None:
    if not 0 <= old <= made.size:
        raise Invalid(
            f"old_size must be from 0 to size ({made.size}), and was {old}", reason="BAD_OLD_SIZE", field="old_size"
        )
    made.root, made.hashes[:] = await _proof(reading, made.size, merkle.consistency(old, made.size))
    made.old_root = await _intact(store.root(reading, old))
    if not merkle.consistent(old, made.size, made.old_root, made.root, made.hashes):
        raise _damaged(f"the tree of {made.size} does not continue the tree of {old}")


async def _proof(reading: Transaction, size: int, ranges: Sequence[Range]) -> tuple[bytes, list[bytes]]:
    root, *hashes = await _intact(store.hashes(reading, [(0, size), *ranges] if size else [])) or [merkle.EMPTY]
    return root, hashes


async def _intact(read: Any) -> Any:
    """What is read of the tree. Raises Refused when parts of it are missing."""
    try:
        return await read
    except (KeyError, ValueError) as missing:
        raise _damaged("parts of its tree are missing") from missing


def _damaged(detail: str) -> Refused:
    return Refused(f"the audit log is damaged: {detail}; look with: prunella audit check", reason="AUDIT_BROKEN")


def _compared(comparison: Comparison, size: int, found: Sequence[Finding]) -> audit_pb2.CheckAuditResponse:
    findings = [audit_pb2.AuditFinding(index=index, event_id=event, detail=detail) for index, event, detail in found]
    return audit_pb2.CheckAuditResponse(next_index=comparison.peaks.size, size=size, findings=findings)
