"""The checkers themselves: each sees the breach it is there for. A checker that never complains proves nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from deploy.local.testing import BackingServices
from libs.common.names import new_id
from prunella.v1.events_pb2 import Event, KillSwitchEngaged, KillSwitchReleased
from tests.chaos import invariants

T0 = datetime(2026, 1, 1, tzinfo=UTC)
PLUGIN = new_id()


@pytest.fixture
async def connection(backing: BackingServices) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(backing.url())
    await made.execute(
        """INSERT INTO ingest.plugins (id, package, merchant, label, secret, enroll_time)
           VALUES ($1::text::uuid, 'relay', 'acme', 'shop-1', 'x', $2)""",
        PLUGIN, T0,
    )  # fmt: skip
    yield made
    await made.close()


async def incident(connection: asyncpg.Connection, start: int, end: int | None, state: str) -> str:
    found = new_id()
    ends = None if end is None else T0 + timedelta(seconds=end)
    await connection.execute(
        """INSERT INTO ingest.incidents (id, plugin, merchant, package, type, severity, state, round, open_time,
             first_bad_beat_time, update_time, act_by_time, end_time)
           VALUES ($1::text::uuid, $2::text::uuid, 'acme', 'relay', 'error_spike', 2, $3, 1, $4, $4, $4, $4, $5)""",
        found, PLUGIN, state, T0 + timedelta(seconds=start), ends,
    )  # fmt: skip
    return found


async def tell(
    connection: asyncpg.Connection, fact: str, *, incident: str = "", at: int = 0, payload: bytes = b""
) -> str:
    event = new_id()
    await connection.execute(
        """INSERT INTO bus.facts (id, time, source, fact, plugin, merchant, incident, actor, reason, cause_id, payload,
             traceparent) VALUES ($1::text::uuid, $2, 'ingest', $3, '', '', $4, '', '', '', $5, '')""",
        event, T0 + timedelta(seconds=at), fact, incident, payload,
    )  # fmt: skip
    return event


async def stopped(connection: asyncpg.Connection, scope: str, start: int, end: int) -> None:
    engaged = Event(kill_switch_engaged=KillSwitchEngaged(scope=scope)).SerializeToString()
    released = Event(kill_switch_released=KillSwitchReleased(scope=scope)).SerializeToString()
    await tell(connection, "kill_switch_engaged", at=start, payload=engaged)
    await tell(connection, "kill_switch_released", at=end, payload=released)


async def attempt(connection: asyncpg.Connection, state: str, *, permitted: bool = True, **more: Any) -> str:
    made = new_id()
    columns = {
        row["column_name"]: row["data_type"]
        for row in await connection.fetch(
            """SELECT column_name, data_type FROM information_schema.columns
               WHERE table_schema = 'patcher' AND table_name = 'attempts' AND is_nullable = 'NO'"""
        )
    }
    blank = {"text": "", "boolean": False, "jsonb": "{}", "timestamp with time zone": T0}
    values = {name: blank.get(kind, 0) for name, kind in columns.items()}
    values |= {"id": made, "decision": made, "plugin": PLUGIN, "state": state, "permitted": permitted, "generation": 1}
    values |= more
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await connection.execute(
        f"INSERT INTO patcher.attempts ({', '.join(values)}) VALUES ({places})",  # noqa: S608 - names of the catalogue
        *values.values(),
    )
    return made


async def test_an_empty_plane_breaks_nothing(backing: BackingServices, connection: asyncpg.Connection) -> None:
    assert await invariants.complaints(backing.url(), {"ops": ["incident_opened"]}) == []


async def test_two_open_incidents_of_one_kind_are_seen_even_in_the_past(connection: asyncpg.Connection) -> None:
    await incident(connection, 0, 60, "closed")
    assert await invariants.one_incident(connection) == []
    await incident(connection, 30, 90, "mitigated")
    assert "overlap" in (await invariants.one_incident(connection))[0]


async def test_an_anomaly_without_an_incident_is_seen(connection: asyncpg.Connection) -> None:
    await incident(connection, 0, None, "open")
    told = [(PLUGIN, "error_spike"), (PLUGIN, "plugin_down")]
    (complaint,) = await invariants.anomalies_covered(connection, told)
    assert "plugin_down" in complaint


async def test_a_fact_that_never_arrived_and_one_that_ended_a_story_twice_are_seen(
    connection: asyncpg.Connection,
) -> None:
    await tell(connection, "incident_mitigated", incident="i-1")
    event = await tell(connection, "incident_mitigated", incident="i-1")
    await connection.execute("INSERT INTO bus.inbox VALUES ('ops', $1::text::uuid, $2)", event, T0)
    complaints = await invariants.one_effect(connection, {"ops": ["incident_mitigated"]})
    assert [complaint.split()[0] for complaint in complaints] == ["ops", "2"]
    assert not await invariants.at_rest(connection, {"ops": ["incident_mitigated"]})


@pytest.mark.parametrize(("scope", "covers"), [
    ("global", True), ("plugins/p", True), ("merchants/m", True), ("actions/patch", True),
    ("plugins/q", False), ("merchants/n", False), ("actions/restart", False),
])  # fmt: skip
async def test_a_permit_under_a_kill_switch_that_covers_it_is_seen(
    connection: asyncpg.Connection, scope: str, covers: bool
) -> None:
    await stopped(connection, scope, 10, 20)
    made = await attempt(connection, "success", merchant="m", action="patch")
    for second, permit in ((5, "before"), (15, "under"), (25, "after")):
        await connection.execute(
            "INSERT INTO patcher.permits VALUES ($3, 'm', $1, $1, 'p', 'c', 1, 1, true, '', $2)",
            permit, T0 + timedelta(seconds=second), made,
        )  # fmt: skip
    expected = [f"permit under under the kill switch {scope}"] if covers else []
    assert await invariants.no_apply_after_kill(connection) == expected


async def command(connection: asyncpg.Connection, fence: int, kind: int, **times: datetime) -> str:
    made = new_id()
    await connection.execute(
        """INSERT INTO ingest.commands (id, request_id, plugin, merchant, attempt, incident, kind, generation, fence,
             state, deadline_time, issue_time, release, envelope, digest, size, dead_man_seconds, config, traceparent,
             hand_out_time)
           VALUES ($1::text::uuid, $1::text, $2::text::uuid, 'acme', '', '', $3, 1, $4, 'done', $5, $5, '', '', '', 0,
             0, '', '', $6)""",
        made, PLUGIN, kind, fence, T0, times.get("handed_out"),
    )  # fmt: skip
    return made


@pytest.mark.parametrize(("kind", "switches"), [(1, True), (2, False), (3, True), (4, True), (5, False)])
async def test_a_command_handed_out_under_a_kill_switch_is_seen(
    connection: asyncpg.Connection, kind: int, switches: bool
) -> None:
    await stopped(connection, f"plugins/{PLUGIN}", 10, 20)
    times = [T0 + timedelta(seconds=second) for second in (5, 15, 25)]
    _, under, _ = [await command(connection, place, kind, handed_out=time) for place, time in enumerate(times)]
    expected = [f"command {under} handed out under the kill switch plugins/{PLUGIN}"] if switches else []
    assert await invariants.no_apply_after_kill(connection) == expected


@pytest.mark.parametrize("permitted", [True, False])
async def test_what_was_applied_without_a_permit_is_seen(connection: asyncpg.Connection, permitted: bool) -> None:
    made = await command(connection, 1, 1)
    await connection.execute(
        "INSERT INTO ingest.receipts VALUES ($1::text::uuid, 'acme', 1, $2, '', '', '', false)", made, T0
    )
    if permitted:
        tried = await attempt(connection, "success")
        await connection.execute(
            "INSERT INTO patcher.permits VALUES ($1, 'acme', 'n', 'n', $2, $3, 1, 1, true, '', $4)",
            tried, PLUGIN, made, T0,
        )  # fmt: skip
    expected = [] if permitted else [f"command {made} was applied without a permit"]
    assert await invariants.no_apply_after_kill(connection) == expected


async def test_an_incident_that_came_back_may_end_once_more_and_no_oftener(connection: asyncpg.Connection) -> None:
    for fact in ("incident_closed", "incident_reopened", "incident_closed"):
        await tell(connection, fact, incident="i-1")
    assert await invariants.one_effect(connection, {}) == []
    await tell(connection, "incident_closed", incident="i-1")
    (complaint,) = await invariants.one_effect(connection, {})
    assert complaint.startswith("3 ")


async def test_two_permitted_attempts_of_a_plugin_at_once_are_seen(connection: asyncpg.Connection) -> None:
    ends = T0 + timedelta(seconds=10)
    await attempt(connection, "success", permit_time=T0, end_time=ends)
    await attempt(connection, "success", permit_time=ends, end_time=ends + timedelta(seconds=5))
    await attempt(connection, "probation", plugin="another", permit_time=T0)
    assert await invariants.one_attempt(connection) == []
    await attempt(connection, "probation", permit_time=ends + timedelta(seconds=4))
    (complaint,) = await invariants.one_attempt(connection)
    assert PLUGIN in complaint


@pytest.mark.parametrize(("yes", "status", "plan", "enough"), [
    (("bea", "cem"), "approved", "h", True), (("bea", "cem"), "expired", "h", True),
    (("bea",), "approved", "h", False), (("bea", "Bea "), "approved", "h", False),
    (("bea", "ada"), "approved", "h", False), (("bea", "decider"), "approved", "h", False),
    (("bea", "cem"), "approved", "another", False), (("bea", "cem"), "open", "h", False),
])  # fmt: skip
async def test_a_switch_without_enough_other_people_is_seen(
    connection: asyncpg.Connection, yes: tuple[str, ...], status: str, plan: str, enough: bool
) -> None:
    made = await attempt(connection, "success", plan_hash="h", action="restart")
    votes = [{"operator": operator, "approved": True} for operator in yes]
    detail = {"quorum": 2, "authors": ["ada"], "proposer": "decider", "votes": votes}
    await connection.execute(
        "INSERT INTO patcher.approvals VALUES ('ap', 'm', $1, $2, '{}', $3, NULL, $4, $4, $5)",
        f"attempts/{made}", plan, status, T0, json.dumps(detail),
    )  # fmt: skip
    assert bool(await invariants.only_approved(connection)) is not enough


async def test_a_patch_to_what_was_never_published_is_seen(connection: asyncpg.Connection) -> None:
    made = await attempt(connection, "success", action="patch", package="relay", to_release="9.9.9", digest="ab" * 32)
    assert await invariants.only_approved(connection) == [f"attempt {made} brings no release"]


@pytest.mark.parametrize(("state", "word", "wrong"), [
    ("success", 2, False), ("rolled_back", 3, False), ("unconfirmed", None, False),
    ("applying", None, True), ("success", 3, True), ("rolled_back", 2, True), ("success", None, True),
])  # fmt: skip
async def test_an_apply_without_an_end_or_against_the_agents_word_is_seen(
    connection: asyncpg.Connection, state: str, word: int | None, wrong: bool
) -> None:
    made = await attempt(connection, state)
    await connection.execute(
        "INSERT INTO ingest.generations VALUES ($1::text::uuid, 'acme', 1, $2, $3, $4)", PLUGIN, made, word, T0
    )
    assert bool(await invariants.every_apply_ends(connection)) is wrong


async def test_a_fact_that_was_never_logged_and_an_entry_that_was_changed_are_seen(
    connection: asyncpg.Connection,
) -> None:
    event = await tell(connection, "incident_mitigated", incident="i-1")
    assert await invariants.every_fact_logged(connection) == [f"incident_mitigated {event} is not in the audit log"]
    await connection.execute(
        """INSERT INTO ops.audit_entries (index, event_id, time, fact, actor, plugin, merchant, incident, leaf_hash,
               entry)
           VALUES (0, $1::text::uuid, $2, 'incident_mitigated', '', '', '', 'i-1', sha256('\\x007b7d'::bytea), '{}')""",
        event, T0,
    )  # fmt: skip
    (complaint,) = await invariants.every_fact_logged(connection)
    assert "is filed under" in complaint
