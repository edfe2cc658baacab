"""Every fact becomes one entry of the audit log, signed and provable, whoever logs it and whatever is killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.errors import Invalid, NotFound
from libs.common.facts import fact
from libs.common.names import new_id
from prunella.v1 import audit_pb2
from prunella.v1 import events_pb2 as facts
from services.ops.audit import merkle, note
from services.ops.audit.verify import verify
from services.ops.store import audit as store
from services.ops.sweeps import audit as sweeps
from services.ops.sweeps.audit import log_facts, sign_checkpoint
from services.ops.wire import contradiction
from tests.service.audit_plane import TRACE, exported, findings, health, log, now, ops, tell

COUNT = 300


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[Plane]:
    plane = Plane(backing, names=["ops"])
    try:
        yield await plane.start()
    finally:
        await plane.stop()


@pytest.fixture(scope="module")
async def shared(servers: Servers) -> AsyncIterator[Plane]:
    """A log of COUNT entries that nobody adds to."""
    backing = await BackingServices.make(servers)
    plane = Plane(backing, names=["ops"])
    try:
        await plane.start()
        operator = fact(
            "patcher",
            facts.PolicyChanged(
                fields=["min_confidence"],
                changes=[facts.PolicyFieldChange(field="min_confidence", before="0.7", after="0.9")],
            ),
            actor="operators/ada",
            reason="quiet weekend",
        )
        await tell(backing, *[health() for _ in range(COUNT - 1)])
        await tell_as_patcher(backing, operator)
        await until(lambda: signed(plane, COUNT), 20, what="everything is signed")
        yield plane
    finally:
        await plane.stop()
        await backing.discard()


async def tell_as_patcher(backing: BackingServices, event: facts.Event) -> None:
    from libs.common.clock import SystemClock
    from libs.common.database import Database

    database = Database(backing.url("patcher"), clock=SystemClock(), pool_size=1)

    async def work(tx: Any) -> None:
        tx.record(event)

    await database.transaction(work)
    await database.close()


async def signed(plane: Plane, size: int) -> bool:
    rows = await plane.sql("SELECT size FROM ops.audit_checkpoints ORDER BY size DESC LIMIT 1")
    return bool(rows) and rows[0].size >= size


async def events(plane: Plane) -> list[str]:
    return [str(row.event_id) for row in await plane.sql("SELECT event_id FROM ops.audit_entries ORDER BY index")]


async def listed(plane: Plane, **filters: Any) -> list[audit_pb2.AuditEntry]:
    return list((await ops(plane).ListAudit(audit_pb2.ListAuditRequest(**filters), timeout=5)).entries)


async def checkpoint(plane: Plane, size: int = 0) -> audit_pb2.AuditCheckpoint:
    request = audit_pb2.GetAuditCheckpointRequest(size=size)
    answer = await ops(plane).GetAuditCheckpoint(request, timeout=5)
    assert answer.checkpoint.key in answer.keys
    found: audit_pb2.AuditCheckpoint = answer.checkpoint
    return found


async def prove(plane: Plane, **claim: Any) -> audit_pb2.ProveAuditResponse:
    answer: audit_pb2.ProveAuditResponse = await ops(plane).ProveAudit(audit_pb2.ProveAuditRequest(**claim), timeout=5)
    return answer


async def test_a_fact_is_logged_with_who_what_why_and_where_it_came_from(shared: Plane) -> None:
    (entry,) = await listed(shared, actor="operators/ada")
    assert (entry.fact, entry.actor, entry.resource) == ("policy_changed", "operators/ada", "plane")
    assert (entry.before, entry.after) == ("min_confidence=0.7", "min_confidence=0.9")
    assert entry.event.reason == "quiet weekend"
    said = json.loads(entry.entry)
    assert contradiction(said) == ""
    assert entry.leaf_hash == merkle.leaf_hash(entry.entry)
    (other,) = await listed(shared, page_size=1, facts=["plugin_health_changed"])
    assert (other.before, other.after, other.trace_id) == ("healthy", "down", TRACE)
    assert other.resource == f"plugins/{other.event.plugin}"


async def test_the_log_is_listed_newest_first_by_filter_and_page(shared: Plane) -> None:
    first = await ops(shared).ListAudit(audit_pb2.ListAuditRequest(page_size=COUNT - 1), timeout=5)
    rest = await listed(shared, page_size=COUNT - 1, page_token=first.next_page_token)
    assert [entry.index for entry in [*first.entries, *rest]] == list(range(COUNT))[::-1]
    one = first.entries[7]
    assert [entry.index for entry in await listed(shared, plugin=one.event.plugin)] == [one.index]
    window = audit_pb2.ListAuditRequest(page_size=500)
    window.end_time.CopyFrom(one.event.time)
    assert not (await ops(shared).ListAudit(window, timeout=5)).entries
    window.ClearField("end_time")
    window.start_time.CopyFrom(one.event.time)
    assert len((await ops(shared).ListAudit(window, timeout=5)).entries) == COUNT


async def test_the_checkpoint_is_signed_for_the_tree_of_all_entries(shared: Plane) -> None:
    found = await checkpoint(shared)
    read = note.read(found.note)
    assert read.signed_by([note.read_key(found.key)])
    leaves = [merkle.leaf_hash(entry.entry) for entry in reversed(await listed(shared, page_size=COUNT))]
    peaks, _ = merkle.Peaks().append(leaves)
    assert (read.size, read.root) == (COUNT, peaks.root) == (found.size, found.root)
    assert (await checkpoint(shared, found.size)).note == found.note


async def test_an_entry_is_proven_by_index_and_by_event_in_any_tree_that_holds_it(shared: Plane) -> None:
    for index in (0, 255, 256, COUNT - 1):
        for size in {index + 1, COUNT}:
            proof = await prove(shared, index=index, size=size)
            leaf = merkle.leaf_hash(proof.entry.entry)
            assert merkle.included(leaf, index, size, proof.hashes, proof.root)
    by_event = await prove(shared, event_id=proof.entry.event.id)
    assert by_event.hashes == (await prove(shared, index=proof.entry.index)).hashes
    assert (by_event.size, by_event.checkpoint.root) == (COUNT, by_event.root)


@pytest.mark.parametrize("old", [0, 1, 200, 256, 299, 300])
async def test_the_log_is_proven_to_have_only_grown(shared: Plane, old: int) -> None:
    proof = await prove(shared, old_size=old, size=COUNT)
    assert merkle.consistent(old, COUNT, proof.old_root, proof.root, proof.hashes)


async def test_an_export_proves_itself_without_the_plane(shared: Plane) -> None:
    found = await checkpoint(shared)
    key, known = note.read_key(found.key), note.read(found.note)
    lines = await exported(shared)
    verification = verify(lines, keys=[key], known=[known], check_entry=contradiction)
    assert (verification.size, verification.root, verification.pinned) == (COUNT, found.root, True)
    part = verify(await exported(shared, from_index=257), keys=[key], check_entry=contradiction)
    assert (part.first, part.root) == (257, found.root)
    assert verify(await exported(shared, from_index=COUNT)).size == COUNT


async def test_nothing_is_found_where_nothing_was_done(shared: Plane) -> None:
    assert await findings(shared) == []
    assert await findings(shared, from_index=260) == []


@pytest.mark.parametrize(
    ("method", "request_", "problem", "reason"),
    [
        ("ListAudit", audit_pb2.ListAuditRequest(facts=["nonsense"]), Invalid, "UNKNOWN_FACT"),
        ("ListAudit", audit_pb2.ListAuditRequest(page_token="x"), Invalid, "BAD_PAGE_TOKEN"),
        ("ListAudit", audit_pb2.ListAuditRequest(actor="x" * 201), Invalid, "BAD_ACTOR"),
        (
            "ListAudit",
            audit_pb2.ListAuditRequest(start_time={"seconds": 9}, end_time={"seconds": 8}),  # type: ignore[arg-type]
            Invalid,
            "BAD_WINDOW",
        ),
        ("ListAudit", audit_pb2.ListAuditRequest(end_time={"seconds": 1 << 60}), Invalid, "TIME_INVALID"),  # type: ignore[arg-type]
        ("GetAuditCheckpoint", audit_pb2.GetAuditCheckpointRequest(size=-1), Invalid, "BAD_SIZE"),
        ("GetAuditCheckpoint", audit_pb2.GetAuditCheckpointRequest(size=COUNT + 1), Invalid, "SIZE_BEYOND_TREE"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(), Invalid, "NO_CLAIM"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(index=-1), Invalid, "BAD_INDEX"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(index=COUNT), NotFound, "UNKNOWN_INDEX"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(index=9, size=9), Invalid, "INDEX_BEYOND_TREE"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(index=0, size=COUNT + 1), Invalid, "SIZE_BEYOND_TREE"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(event_id="x"), Invalid, "BAD_ID"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(event_id="0" * 32), NotFound, "UNKNOWN_EVENT"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(old_size=10, size=9), Invalid, "BAD_OLD_SIZE"),
        ("ProveAudit", audit_pb2.ProveAuditRequest(old_size=-1), Invalid, "BAD_OLD_SIZE"),
    ],
)  # fmt: skip
async def test_bad_questions_have_each_their_error(
    shared: Plane, method: str, request_: Any, problem: Any, reason: str
) -> None:
    with pytest.raises(problem) as refused:
        await getattr(ops(shared), method)(request_, timeout=5)
    assert refused.value.reason == reason


async def test_a_token_of_another_query_is_refused(shared: Plane) -> None:
    first = await ops(shared).ListAudit(audit_pb2.ListAuditRequest(page_size=1), timeout=5)
    with pytest.raises(Invalid) as refused:
        await listed(shared, page_size=1, actor="ingest", page_token=first.next_page_token)
    assert refused.value.reason == "PAGE_TOKEN_OF_ANOTHER_QUERY"


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ExportAudit", audit_pb2.ExportAuditRequest(from_index=COUNT + 1)),
        ("ExportAudit", audit_pb2.ExportAuditRequest(from_index=-1)),
        ("CheckAudit", audit_pb2.CheckAuditRequest(from_index=COUNT + 1)),
    ],
)
async def test_a_stream_from_beyond_the_log_is_refused(shared: Plane, method: str, request_: Any) -> None:
    with pytest.raises(Invalid) as refused:
        await anext(aiter(getattr(ops(shared), method)(request_, timeout=5)))
    assert refused.value.reason == "BAD_INDEX"


async def test_before_the_first_checkpoint_there_is_none(backing: BackingServices) -> None:
    plane = Plane(backing, names=["ops"])
    try:
        await plane.start()
        with pytest.raises(NotFound, match="nothing is signed yet"):
            await checkpoint(plane)
        assert await findings(plane) == []
    finally:
        await plane.stop()


async def test_a_fact_that_becomes_visible_late_is_logged_all_the_same(alone: Plane) -> None:
    ctx = alone.services["ops"].ctx
    late = health(reason="committed late")
    late.time.FromDatetime(now() - timedelta(seconds=90))
    await tell(alone.backing, health(), health())
    await until(lambda: signed(alone, 2), 20)
    await tell(alone.backing, late)
    ctx.last_look_back.clear()
    await log_facts(ctx, now())
    assert (await events(alone))[2] == late.id
    assert await findings(alone) == []


async def test_a_fact_of_the_future_hides_nobody_elses(alone: Plane) -> None:
    future = health()
    future.time.FromDatetime(now() + timedelta(days=400))
    await tell(alone.backing, future)
    await until(lambda: signed(alone, 1), 20)
    await tell(alone.backing, *[health() for _ in range(3)])
    await until(lambda: signed(alone, 4), 20)
    assert len(set(await events(alone))) == 4


async def test_many_sequencers_at_once_log_each_fact_once(
    backing: BackingServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "BATCH", 7)
    plane = Plane(backing, names=["ops"])
    try:
        await plane.start()
        replica = await plane.start_service("ops", replica=True)
        ctx = [plane.services["ops"].ctx, replica.ctx]
        told = [health() for _ in range(200)]

        async def telling() -> None:
            for begin in range(0, 200, 20):
                await tell(backing, *told[begin : begin + 20])

        async def logging(own: Any) -> None:
            while len(await events(plane)) < 200:
                await log_facts(own, now())

        await asyncio.wait_for(asyncio.gather(telling(), *[logging(own) for own in ctx * 2]), 30)
        assert sorted(await events(plane)) == sorted(event.id for event in told)
        await until(lambda: signed(plane, 200), 20)
        assert verify(await exported(plane), check_entry=contradiction).size == 200
    finally:
        await plane.stop()


async def test_a_sequencer_killed_in_the_middle_repeats_and_loses_nothing(
    alone: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = alone.services["ops"].ctx
    await alone.stop_service("ops")
    told = [health() for _ in range(40)]
    await tell(alone.backing, *told)
    monkeypatch.setattr(sweeps, "BATCH", 16)
    real, calls = store.append, 0

    async def dying(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        size: int = await real(*arguments)
        if calls == 2:
            raise asyncio.CancelledError
        return size

    monkeypatch.setattr(store, "append", dying)
    with pytest.raises(asyncio.CancelledError):
        await log_facts(ctx, now())
    assert len(await events(alone)) == 16
    monkeypatch.undo()
    await alone.start_service("ops")
    await until(lambda: signed(alone, 40), 20)
    assert sorted(await events(alone)) == sorted(event.id for event in told)


async def test_a_restart_keeps_name_key_and_history(alone: Plane) -> None:
    await tell(alone.backing, health())
    await until(lambda: signed(alone, 1), 20)
    before = await checkpoint(alone)
    await alone.stop_service("ops")
    await tell(alone.backing, health())
    await alone.start_service("ops")
    await until(lambda: signed(alone, 2), 20)
    after = await checkpoint(alone)
    assert (after.origin, after.key, after.size) == (before.origin, before.key, 2)
    key = alone.backing.folder / "ops" / "audit.key"
    assert key.stat().st_mode & 0o777 == 0o600


async def test_what_was_logged_cannot_be_changed_by_mistake(alone: Plane) -> None:
    ctx = alone.services["ops"].ctx
    await tell(alone.backing, health())
    await log(ctx)
    for change in ("UPDATE ops.audit_entries SET entry = ''", "DELETE FROM ops.audit_checkpoints"):
        with pytest.raises(Exception, match="what was logged stays"):
            await ctx.database.transaction(lambda tx, change=change: tx.run(change))  # type: ignore[misc]


async def test_a_checkpoint_is_written_only_when_the_log_grew(alone: Plane) -> None:
    ctx = alone.services["ops"].ctx
    await tell(alone.backing, health(new_id()))
    await until(lambda: signed(alone, 1), 20)
    assert await sign_checkpoint(ctx, now()) == 0
