"""Asking the external SIRA: a good answer counts, a bad one costs its deadline at most and never changes a plugin."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices, until
from libs.common.clock import ManualClock
from prunella.v1 import decider_pb2, events_pb2
from services.decider.sweeps import overdue
from tests.service import sira_server
from tests.service.decider_alone import DeciderAlone
from tests.service.sira_server import SiraServer

UNKNOWN = {"package": "nobody-knows"}


@pytest.fixture
async def sira() -> AsyncIterator[SiraServer]:
    server = SiraServer(sira_server.good())
    yield await server.start()
    await server.stop()


@pytest.fixture
async def alone(backing: BackingServices, sira: SiraServer) -> AsyncIterator[DeciderAlone]:
    environ = {"SIRA_API_URL": sira.url, "SIRA_API_TOKEN": "let-me-in", "SIRA_TIMEOUT_SECONDS": "0.7"}
    decider = DeciderAlone(backing, environ)
    try:
        yield await decider.start()
    finally:
        await decider.stop()


async def decided(alone: DeciderAlone, **changes: Any) -> events_pb2.DecisionMade:
    incident, _ = await alone.open_incident(**(UNKNOWN | changes))
    (made,) = await until(lambda: alone.plane.facts("decision_made", incident=incident), what="a decision")
    return made.decision_made  # type: ignore[no-any-return]


async def stored(alone: DeciderAlone, made: events_pb2.DecisionMade) -> decider_pb2.Decision:
    return (await alone.stub.GetDecision(decider_pb2.GetDecisionRequest(name=f"decisions/{made.decision}"))).decision


async def test_a_good_answer_is_one_more_candidate_and_wins_where_nobody_is_sure(
    alone: DeciderAlone, sira: SiraServer
) -> None:
    made = await decided(alone)
    assert (made.action, made.release, made.origin) == (events_pb2.ACTION_PATCH, "2.0.0", "sira")
    assert made.confidence == 0.87
    assert "SIRA says: seen elsewhere" in made.explanation
    (asked,) = sira.asked
    assert (asked.path, asked.headers["authorization"]) == ("/api/sira/decide", "Bearer let-me-in")
    assert set(asked.body) == {
        "merchant_id",
        "plugin_id",
        "telemetry",
        "severity",
        "incident_type",
        "current_version",
        "historical_data",
    }
    assert (asked.body["severity"], asked.body["current_version"]) == ("medium", "1.2.0")
    assert "4111" not in json.dumps(asked.body), "inputs that failed stay with us"


async def test_who_is_sure_asks_nobody(alone: DeciderAlone, sira: SiraServer) -> None:
    made = await decided(alone, package="checkout")
    assert made.origin == "playbook"
    assert not sira.asked


async def test_silence_of_a_plugin_is_no_question_for_sira(
    backing: BackingServices, sira: SiraServer, tmp_path: Path
) -> None:
    own = tmp_path / "knows-nothing.toml"
    own.write_text("")
    alone = DeciderAlone(backing, {"SIRA_API_URL": sira.url, "DECIDER_PLAYBOOK": str(own)})
    try:
        await alone.start()
        made = await decided(alone, type="heartbeat_missed", severity=events_pb2.SEVERITY_CRITICAL)
    finally:
        await alone.stop()
    assert (made.action, made.origin) == (events_pb2.ACTION_NOTIFY_OPS, "fallback")
    assert not sira.asked


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (sira_server.server_error(), "status 500"),
        (sira_server.too_many(), "status 429"),
        (sira_server.garbage(), "does not fit"),
        (sira_server.html(), "text/html"),
        (sira_server.redirect(), "status 307"),
        (sira_server.bomb(), "compressed"),
        (sira_server.endless, "larger than"),
        (sira_server.trickling, "within 0.7 s"),
        (sira_server.silent, "within 0.7 s"),
        (sira_server.hanging_up, "cannot be asked"),
        (sira_server.good(action=None), "does not fit"),
        (sira_server.good(confidence=None), "does not fit"),
        (sira_server.good(confidence=1.7), "does not fit"),
        (sira_server.good(confidence="0.9"), "does not fit"),
        (sira_server.good(confidence=True), "does not fit"),
        (sira_server.good(patch_version=7), "does not fit"),
        (sira_server.reply(b"[]"), "does not fit"),
        (sira_server.reply(b""), "does not fit"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
async def test_a_bad_answer_is_the_same_as_none(
    alone: DeciderAlone, sira: SiraServer, answer: sira_server.Answer, said: str
) -> None:
    sira.answer = answer
    made = await decided(alone)
    assert (made.origin, made.action, made.confidence) == ("fallback", events_pb2.ACTION_CONFIG_FIX, 0.6)
    assert said in (await stored(alone, made)).features["sira"]
    assert len(sira.asked) == 1, "one question, never followed elsewhere"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"action": "format_disk"}, "the action is not known"),
        ({"patch_version": None}, "patch needs a release"),
        ({"patch_version": "1.2.0"}, "this release runs already"),
        ({"patch_version": "../../../etc"}, "the release is no version"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_stored_and_left_out(
    alone: DeciderAlone, sira: SiraServer, changes: dict[str, Any], why: str
) -> None:
    sira.answer = sira_server.good(confidence=1.0, **changes)
    made = await decided(alone)
    assert made.origin == "fallback"
    (candidate,) = [entry for entry in (await stored(alone, made)).candidates if entry.origin == "sira"]
    assert (candidate.excluded, candidate.propensity) == (why, 0)


async def test_a_preview_tells_that_sira_would_be_asked_and_does_not_ask(alone: DeciderAlone, sira: SiraServer) -> None:
    request = decider_pb2.PreviewDecisionRequest(type="error_spike", package="nobody-knows", release="1")
    decision = (await alone.stub.PreviewDecision(request)).decision
    assert decision.features["sira"] == "would be asked"
    assert not sira.asked


async def test_a_certain_answer_is_capped(alone: DeciderAlone, sira: SiraServer) -> None:
    sira.answer = sira_server.good(confidence=1.0)
    assert (await decided(alone)).confidence == 0.9


async def test_a_sira_that_keeps_failing_is_left_alone_and_people_are_told(
    alone: DeciderAlone, sira: SiraServer
) -> None:
    sira.answer = sira_server.server_error()
    for number in range(3):
        await decided(alone, plugin=f"p{number}")
    changed = (await alone.plane.wait_for_fact("breaker_changed")).breaker_changed
    assert (changed.breaker, getattr(changed, "from"), changed.to) == ("sira", "closed", "open")
    made = await decided(alone, plugin="p9")
    assert len(sira.asked) == 3
    assert "sira" not in (await stored(alone, made)).features


async def test_nobody_listening_is_the_same_as_no_answer(alone: DeciderAlone, sira: SiraServer) -> None:
    await sira.stop()
    assert (await decided(alone)).origin == "fallback"


async def test_a_sira_nobody_vouches_for_is_not_asked(backing: BackingServices, tmp_path: Path) -> None:
    stranger = SiraServer(sira_server.good(), tls=sira_server.unknown_authority(tmp_path))
    await stranger.start()
    alone = DeciderAlone(backing, {"SIRA_API_URL": stranger.url, "SIRA_API_TOKEN": "let-me-in"})
    try:
        await alone.start()
        assert (await decided(alone)).origin == "fallback"
        assert not stranger.asked
    finally:
        await alone.stop()
        await stranger.stop()


async def test_an_answer_for_an_incident_that_ended_meanwhile_decides_nothing(
    alone: DeciderAlone, sira: SiraServer
) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def later(writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await release.wait()
        await sira_server.good()(writer)

    sira.answer = later
    incident, _ = await alone.open_incident(**UNKNOWN)
    await arrived.wait()
    alone.ingest.incidents[incident] = ("closed", 1)
    release.set()

    async def superseded() -> bool:
        (row,) = await alone.plane.sql("SELECT state FROM decider.decisions")
        return bool(row.state == "superseded")

    await until(superseded)
    assert not await alone.plane.facts("decision_made")


async def test_a_new_round_supersedes_a_question_that_is_still_open(alone: DeciderAlone, sira: SiraServer) -> None:
    sira.answer = sira_server.silent
    incident, _ = await alone.open_incident(**UNKNOWN)
    await until(lambda: sira.asked)
    alone.ingest.incidents[incident] = ("open", 2)
    told = events_pb2.IncidentRoundStarted(type="error_spike", round=2, package="checkout", release="1.2.0")
    await alone.record(told, incident=incident)
    made = await alone.plane.wait_for_fact("decision_made")
    states = await alone.plane.sql("SELECT round, state FROM decider.decisions ORDER BY round")
    assert made.decision_made.round == 2
    assert [(row.round, row.state) for row in states] == [(1, "superseded"), (2, "made")]


async def test_a_question_nobody_brought_back_is_ended_by_the_sweep_at_its_deadline(
    backing: BackingServices, sira: SiraServer
) -> None:
    clock = ManualClock()
    sira.answer = sira_server.silent
    environ = {"SIRA_API_URL": sira.url, "SIRA_TIMEOUT_SECONDS": "50"}
    alone = DeciderAlone(backing, environ, clock)
    await alone.start()
    try:
        incident, _ = await alone.open_incident(**UNKNOWN)
        await until(lambda: sira.asked)
        assert await overdue(alone.ctx, clock.now() + timedelta(seconds=54)) == 0
        clock.advance(56)
        (made,) = await until(lambda: alone.plane.facts("decision_made", incident=incident))
        assert made.decision_made.origin == "fallback"
        (row,) = await alone.plane.sql("SELECT state, features FROM decider.decisions")
        assert (row.state, row.features["sira"]) == ("made", "no answer in time")
        assert await overdue(alone.ctx, clock.now()) == 0
    finally:
        await sira.stop()
        await alone.stop()
    assert len(await _facts(backing)) == 1


async def _facts(backing: BackingServices) -> list[Any]:
    from libs.common.clock import SystemClock
    from libs.common.database import Database

    database = Database(backing.url(), clock=SystemClock(), pool_size=1)
    try:
        async with database.reading() as tx:
            return list(await tx.all("SELECT id FROM bus.facts WHERE fact = 'decision_made'"))
    finally:
        await database.close()
