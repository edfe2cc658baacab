"""Time passed: facts become entries of the audit log, and what it grew by is signed.

Rule: whoever gets the lock appends, everybody else goes home; each batch is one transaction, so a kill loses nothing
and repeats nothing. A fact may become visible later than younger ones; therefore each round looks back a second, and
now and then further. Nothing is signed that does not continue what was signed before.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from libs.common.database import Transaction
from libs.common.errors import Refused
from libs.common.telemetry import counter
from services.ops import wire
from services.ops.audit import entry, merkle
from services.ops.context import ServiceContext
from services.ops.store import audit as store
from services.ops.sweeps.audit_check import record_findings

BATCH = 2000
# How far back a round looks → seconds between two such rounds. No transaction stays open longer than the last.
LOOK_BACK = {1.0: 0.0, 20.0: 10.0, 120.0: 60.0}

sequenced = counter("ops_audit_entries_total", "Facts that became entries of the audit log")
signed = counter("ops_audit_checkpoints_total", "Checkpoints of the audit log", ["outcome"])


async def log_facts(ctx: ServiceContext, now: datetime) -> int:
    """Appends what is not logged yet; how many."""
    done, reach, floor = 0, _look_back(ctx, now), None
    while True:
        count, last = await ctx.database.transaction(partial(_append, floor=floor, reach=reach, now=now))
        done += count
        if count < BATCH:
            return done
        floor = last


async def _append(tx: Transaction, *, floor: datetime | None, reach: timedelta, now: datetime) -> tuple[int, datetime]:
    """Appends one batch of facts; how many, and the time of the last."""
    if not await store.try_lock(tx):
        return 0, now
    before = await store.log(tx)
    taken = await store.unsequenced(tx, floor or min(now, before.cursor) - reach, BATCH)
    if not taken:
        return 0, now
    facts = [wire.with_changes(one) for one in taken]
    # A fact of the future must not carry those of the present out of sight.
    cursor = max(before.cursor, min(facts[-1].time, now))
    await store.append(tx, before, facts, [entry.entry(one) for one in facts], cursor)
    tx.after_commit(lambda: sequenced.inc(len(facts)))
    return len(facts), facts[-1].time


def _look_back(ctx: ServiceContext, now: datetime) -> timedelta:
    """How far behind the last fact this round looks back."""
    reach = 0.0
    for seconds, pause in LOOK_BACK.items():
        last = ctx.last_look_back.get(seconds)
        if last is None or (now - last).total_seconds() >= pause or now < last:
            ctx.last_look_back[seconds] = now
            reach = seconds
    return timedelta(seconds=reach)


async def sign_checkpoint(ctx: ServiceContext, now: datetime) -> int:  # noqa: ARG001 - every sweep is told the time
    """Signs the size and root of the log when it grew; how many checkpoints.

    Raises Refused (AUDIT_BROKEN) when the log does not continue what was signed: then nothing is signed any more.
    """
    async with ctx.database.reading() as reading:
        # The older is read first: the log may grow in between, never shrink.
        last = await store.latest_checkpoint(reading)
        found = await store.log(reading)
        if last and last.size == found.size:
            return 0
        saved = ctx.signing_key.last_checkpoint(found.origin)
        earlier = {(one.size, one.root) for one in (last, saved) if one}
        reasons = [await _discontinuity(reading, size, root, found) for size, root in sorted(earlier)]
    if discontinuity := next(filter(None, reasons), ""):
        signed.labels("refused").inc()
        await record_findings(ctx, [(-1, "", discontinuity)])
        raise Refused(f"no checkpoint is signed: {discontinuity}", reason="AUDIT_BROKEN")
    if not found.size:
        return 0
    signer = ctx.signing_key.signer(found.origin)
    text, root = signer.sign(found.size, found.peaks.root), found.peaks.root
    await ctx.database.transaction(lambda tx: store.save_checkpoint(tx, found.size, root, text, str(signer.key)))
    ctx.signing_key.save_checkpoint(text)
    signed.labels("signed").inc()
    return 1


async def _discontinuity(reading: Transaction, size: int, root: bytes, found: store.Log) -> str:
    """Why the log does not continue the tree of this size and root; empty when it does."""
    if size > found.size:
        return f"the audit log was cut: {size} entries were signed, and fewer are left"
    try:
        proof = await store.hashes(reading, merkle.consistency(size, found.size))
    except (KeyError, ValueError):
        return (
            f"the tree of the audit log has holes: nothing proves that it continues the {size} entries that were signed"
        )
    if not merkle.consistent(size, found.size, root, found.peaks.root, proof):
        return f"the audit log was rewritten: its first {size} entries are not those that were signed"
    return ""
