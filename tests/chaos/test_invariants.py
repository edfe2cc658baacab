"""The checkers themselves: each sees the breach it is there for. A checker that never complains proves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from libs.common.names import new_id
from libs.common.testing import Ground
from tests.chaos import invariants

T0 = datetime(2026, 1, 1, tzinfo=UTC)
PLUGIN = new_id()


@pytest.fixture
async def connection(ground: Ground) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(ground.url())
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
             first_bad_beat_time, update_time, act_by, end_time)
           VALUES ($1::text::uuid, $2::text::uuid, 'acme', 'relay', 'error_spike', 2, $3, 1, $4, $4, $4, $4, $5)""",
        found, PLUGIN, state, T0 + timedelta(seconds=start), ends,
    )  # fmt: skip
    return found


async def tell(connection: asyncpg.Connection, fact: str, *, incident: str = "", at: int = 0) -> str:
    event = new_id()
    await connection.execute(
        """INSERT INTO bus.facts (id, time, source, fact, plugin, merchant, incident, actor, reason, cause_id, payload,
             traceparent) VALUES ($1::text::uuid, $2, 'ingest', $3, '', '', $4, '', '', '', '', '')""",
        event, T0 + timedelta(seconds=at), fact, incident,
    )  # fmt: skip
    return event


async def attempt(connection: asyncpg.Connection, state: str, *, permitted: bool = True) -> str:
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
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await connection.execute(
        f"INSERT INTO patcher.attempts ({', '.join(values)}) VALUES ({places})",  # noqa: S608 - names of the catalogue
        *values.values(),
    )
    return made


async def test_an_empty_plane_breaks_nothing(ground: Ground, connection: asyncpg.Connection) -> None:
    assert await invariants.complaints(ground.url(), {"ops": ["incident_opened"]}) == []


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
    for _ in range(2):
        event = await tell(connection, "incident_mitigated", incident="i-1")
    await connection.execute("INSERT INTO bus.inbox VALUES ('ops', $1::text::uuid, $2)", event, T0)
    complaints = await invariants.one_effect(connection, {"ops": ["incident_mitigated"]})
    assert [complaint.split()[0] for complaint in complaints] == ["ops", "2"]
    assert not await invariants.at_rest(connection, {"ops": ["incident_mitigated"]})


async def test_a_permit_under_a_kill_switch_is_seen(connection: asyncpg.Connection) -> None:
    await tell(connection, "kill_switch_engaged", at=10)
    await tell(connection, "kill_switch_released", at=20)
    for second, permit in ((5, "before"), (15, "under"), (25, "after")):
        await connection.execute(
            "INSERT INTO patcher.permits VALUES ($1, $1, 'a', 'p', 'c', 1, 1, true, '', $2)",
            permit, T0 + timedelta(seconds=second),
        )  # fmt: skip
    assert await invariants.no_apply_after_kill(connection) == ["permit under under a kill switch"]


@pytest.mark.parametrize(("state", "word", "wrong"), [
    ("success", 2, False), ("rolled_back", 3, False), ("unconfirmed", None, False),
    ("applying", None, True), ("success", 3, True), ("rolled_back", 2, True), ("success", None, True),
])  # fmt: skip
async def test_an_apply_without_an_end_or_against_the_agents_word_is_seen(
    connection: asyncpg.Connection, state: str, word: int | None, wrong: bool
) -> None:
    made = await attempt(connection, state)
    await connection.execute(
        "INSERT INTO ingest.generations VALUES ($1::text::uuid, 1, $2, $3, $4)", PLUGIN, made, word, T0
    )
    assert bool(await invariants.every_apply_ends(connection)) is wrong


async def test_a_fact_that_was_never_logged_and_an_entry_that_was_changed_are_seen(
    connection: asyncpg.Connection,
) -> None:
    event = await tell(connection, "incident_mitigated", incident="i-1")
    assert await invariants.every_fact_logged(connection) == [f"incident_mitigated {event} is not in the audit log"]
    await connection.execute(
        """INSERT INTO ops.audit_entries (index, event_id, time, fact, actor, plugin, incident, leaf_hash, entry)
           VALUES (0, $1::text::uuid, $2, 'incident_mitigated', '', '', 'i-1', sha256('\\x007b7d'::bytea), '{}')""",
        event, T0,
    )  # fmt: skip
    (complaint,) = await invariants.every_fact_logged(connection)
    assert "is filed under" in complaint
