"""Whoever owns the database may change every row of it, and is found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Plane, until
from libs.common.errors import Refused
from libs.common.facts import fact_name
from prunella.v1 import audit_pb2
from prunella.v1 import events_pb2 as facts
from services.ops.audit import merkle, note
from services.ops.audit.note import Checkpoint, Key
from services.ops.audit.verify import VerificationError, verify
from services.ops.sweeps.audit import log_facts, sign_checkpoint
from services.ops.sweeps.audit_check import check_audit
from services.ops.wire import contradiction
from tests.service.audit_plane import exported, findings, health, log, now, ops, superuser, tell

FIRST, ALL = 270, 300
EDIT = """
UPDATE ops.audit_entries SET
entry = convert_to(replace(convert_from(entry, 'UTF8'), 'no beat', 'all was well'), 'UTF8') WHERE index = 41
"""
Tamper = Callable[[Any], Awaitable[Any]]


class Logged:
    """A plane whose log has ALL entries, with checkpoints at FIRST and ALL; its duties are done by hand."""

    def __init__(self, plane: Plane, events: list[facts.Event]) -> None:
        self.plane = plane
        self.ctx = plane.services["ops"].ctx
        self.events = events
        self.key: Key
        self.kept: Checkpoint

    async def tamper(self, *statements: tuple[Any, ...]) -> None:
        async with superuser(self.plane.backing) as connection:
            for statement in statements:
                await connection.execute(*statement)

    async def details(self) -> list[tuple[int, str]]:
        return [(found.index, found.detail) for found in await findings(self.plane)]

    async def convicted(self, **arguments: Any) -> VerificationError:
        lines = await exported(self.plane)
        with pytest.raises(VerificationError) as caught:
            verify(lines, keys=[self.key], check_entry=contradiction, **arguments)
        return caught.value


@pytest.fixture
async def logged(backing: BackingServices, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Logged]:
    from services.ops import service

    by_hand = {"log_facts", "sign_checkpoint", "check_audit"}
    kept = {name: entry for name, entry in service.SWEEPS.items() if name not in by_hand}
    monkeypatch.setattr(service, "SWEEPS", kept)
    plane = Plane(backing, names=["ops"])
    try:
        await plane.start()
        made = Logged(plane, [health() for _ in range(ALL)])
        await tell(backing, *made.events[:FIRST])
        await log(made.ctx)
        await tell(backing, *made.events[FIRST:])
        await log(made.ctx)
        answer = await ops(plane).GetAuditCheckpoint(audit_pb2.GetAuditCheckpointRequest(), timeout=5)
        made.key, made.kept = note.read_key(answer.checkpoint.key), note.read(answer.checkpoint.note)
        assert made.kept.size == ALL
        assert await made.details() == []
        yield made
    finally:
        await plane.stop()


async def event_of(logged: Logged, index: int) -> Any:
    (row,) = await logged.plane.sql("SELECT event_id FROM ops.audit_entries WHERE index = :index", index=index)
    return row.event_id


async def test_an_edited_fact_is_named(logged: Logged) -> None:
    event = await event_of(logged, 41)
    await logged.tamper(("UPDATE bus.facts SET reason = 'all was well' WHERE id = $1", event))
    ((index, why),) = await logged.details()
    assert index == 41
    assert why == (
        f"the fact {event} of entry 41 was edited: reason was 'no beat' when it was logged and is 'all was well' now"
    )


async def test_an_edited_payload_is_named(logged: Logged) -> None:
    event = await event_of(logged, 41)
    await logged.tamper(("UPDATE bus.facts SET payload = payload || '\\x00' WHERE id = $1", event))
    ((index, why),) = await logged.details()
    assert index == 41 and "payload" in why


async def test_a_deleted_fact_is_named(logged: Logged) -> None:
    event = await event_of(logged, 41)
    await logged.tamper(("DELETE FROM bus.facts WHERE id = $1", event))
    assert await logged.details() == [(41, f"the fact {event}, which entry 41 tells of, was deleted")]


async def test_a_fact_put_into_the_past_is_named(logged: Logged) -> None:
    forged = health(reason="it was always so")
    forged.time.FromDatetime(now() - timedelta(days=2))
    await tell(logged.plane.backing, forged)
    await log(logged.ctx)
    assert await logged.details() == [(-1, f"the fact {forged.id} is not in the audit log")]


async def test_an_edited_entry_is_named(logged: Logged) -> None:
    await logged.tamper((EDIT,))
    assert (await logged.details())[0] == (41, "entry 41 was edited: it does not have the hash of its leaf")
    assert (await logged.convicted()).index == 41


async def test_an_entry_edited_with_its_hash_and_its_fact_is_found_by_the_tree(logged: Logged) -> None:
    """The fact, the entry and the leaf agree with each other; only the tree does not."""
    event = await event_of(logged, 41)
    (row,) = await logged.plane.sql("SELECT entry FROM ops.audit_entries WHERE index = 41")
    forged = row.entry.replace(b'"merchant":""', b'"merchant":"m-7"')
    await logged.tamper(
        ("UPDATE bus.facts SET merchant = 'm-7' WHERE id = $1", event),
        (
            "UPDATE ops.audit_entries SET entry = $1, leaf_hash = $2 WHERE index = 41",
            forged,
            merkle.leaf_hash(forged),
        ),
    )
    assert await logged.details() == [
        (0, f"one of the entries 0 to {FIRST - 1} is not what the checkpoint of {FIRST} signed")
    ]
    found = await logged.convicted()
    assert (found.index, "contradicts itself: merchant" in found.detail) == (41, True)


async def test_swapped_entries_are_found(logged: Logged) -> None:
    await logged.tamper(
        ("UPDATE ops.audit_entries SET index = -1 WHERE index = 280",),
        ("UPDATE ops.audit_entries SET index = 280 WHERE index = 285",),
        ("UPDATE ops.audit_entries SET index = 285 WHERE index = -1",),
    )
    assert await logged.details() == [
        (FIRST, f"one of the entries {FIRST} to {ALL - 1} is not what the checkpoint of {ALL} signed")
    ]
    assert (await logged.convicted()).index == FIRST


async def test_an_entry_taken_out_of_the_log_is_named(logged: Logged) -> None:
    await logged.tamper(("DELETE FROM ops.audit_entries WHERE index = 280",))
    assert (await logged.details())[0] == (280, "entry 280 is missing in the audit log")
    with pytest.raises(Refused, match="entry 280 is missing"):
        await exported(logged.plane)


async def test_an_edited_checkpoint_is_found(logged: Logged) -> None:
    await logged.tamper(("UPDATE ops.audit_checkpoints SET root = $1 WHERE size = $2", bytes(32), FIRST))
    assert (await logged.details())[0] == (0, f"the kept checkpoint of {FIRST} entries was edited")


async def cut(logged: Logged, size: int) -> None:
    """The log as it was at a size, in every table."""
    entries = [merkle.leaf_hash(row.entry) for row in await rows(logged)][:size]
    peaks, _ = merkle.Peaks().append(entries)
    await logged.tamper(
        ("DELETE FROM ops.audit_entries WHERE index >= $1", size),
        ("DELETE FROM ops.audit_checkpoints WHERE size > $1", size),
        ("UPDATE ops.audit_log SET size = $1, peaks = $2", size, b"".join(peaks.hashes)),
    )


async def rows(logged: Logged) -> list[Any]:
    return list(await logged.plane.sql("SELECT index, event_id, entry FROM ops.audit_entries ORDER BY index"))


async def test_a_cut_tail_is_convicted_by_the_checkpoint_somebody_kept_and_never_signed_again(logged: Logged) -> None:
    gone = [await event_of(logged, index) for index in range(FIRST, ALL)]
    await cut(logged, FIRST)
    await logged.tamper(("DELETE FROM bus.facts WHERE id = ANY($1)", gone))
    assert verify(await exported(logged.plane), keys=[logged.key]).size == FIRST
    found = await logged.convicted(known=[logged.kept])
    assert (found.index, "cut off" in found.detail) == (FIRST, True)
    await tell(logged.plane.backing, health())
    await log_facts(logged.ctx, now())
    with pytest.raises(Refused, match=f"was cut: {ALL} entries were signed"):
        await sign_checkpoint(logged.ctx, now())


async def rebuild(logged: Logged, index: int) -> None:
    """A history in which one fact says something else, with every hash of it right and no checkpoint left."""
    history = await rows(logged)
    event = facts.Event()
    (stored,) = await logged.plane.sql("SELECT payload FROM bus.facts WHERE id = :id", id=history[index].event_id)
    event.ParseFromString(stored.payload)
    event.merchant = "m-7"
    payload = event.SerializeToString()
    await logged.tamper(
        ("UPDATE bus.facts SET payload = $1, merchant = 'm-7' WHERE id = $2", payload, history[index].event_id),
        ("TRUNCATE ops.audit_entries, ops.audit_nodes, ops.audit_checkpoints",),
        ("UPDATE ops.audit_log SET size = 0, peaks = '', cursor_time = 'epoch'",),
    )
    await log_facts(logged.ctx, now())


async def test_a_log_built_anew_with_valid_hashes_is_not_signed(logged: Logged) -> None:
    await rebuild(logged, 41)
    assert len(await rows(logged)) == ALL
    with pytest.raises(Refused, match="rewritten"):
        await sign_checkpoint(logged.ctx, now())
    told = await logged.plane.facts("audit_violated")
    assert [fact_name(event) for event in told] == ["audit_violated"]
    with pytest.raises(Refused):
        await sign_checkpoint(logged.ctx, now())
    assert len(await logged.plane.facts("audit_violated")) == 1


async def test_a_log_built_anew_and_signed_with_the_true_key_is_convicted_by_a_kept_checkpoint(logged: Logged) -> None:
    await rebuild(logged, 41)
    (logged.plane.backing.folder / "ops" / "audit.checkpoint").unlink()
    assert await sign_checkpoint(logged.ctx, now()) == 1
    assert verify(await exported(logged.plane), keys=[logged.key], check_entry=contradiction).size == ALL
    found = await logged.convicted(known=[logged.kept])
    assert "built anew" in found.detail and f"0 to {ALL - 1}" in found.detail


async def test_a_finding_is_told_once_as_a_fact_for_people(logged: Logged) -> None:
    event = await event_of(logged, 41)
    await logged.tamper(("DELETE FROM bus.facts WHERE id = $1", event))
    assert await check_audit(logged.ctx, now()) == 1
    assert await check_audit(logged.ctx, now()) == 0
    (told,) = await logged.plane.facts("audit_violated")
    assert (told.audit_violated.index, told.audit_violated.event) == (41, str(event))
    await log(logged.ctx)

    async def listed() -> bool:
        answer = await ops(logged.plane).ListAudit(audit_pb2.ListAuditRequest(facts=["audit_violated"]), timeout=5)
        return [entry.headline for entry in answer.entries] == [f"the audit log was violated: {told.reason}"]

    await until(listed)


async def test_a_search_that_takes_many_rounds_finds_it_too(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.ops.sweeps import audit_check

    monkeypatch.setattr(audit_check, "ENTRIES", 64)
    event = await event_of(logged, 290)
    await logged.tamper(("DELETE FROM bus.facts WHERE id = $1", event))
    rounds = [await check_audit(logged.ctx, now()) for _ in range(8)]
    assert sum(rounds) == 1
