"""A remedy without traffic commits in time on low evidence, and is watched without a slot until there is proof."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices, until
from prunella.v1 import events_pb2, ingest_pb2
from tests.service.governance import of, set_policy, whole
from tests.service.patcher_alone import PatcherAlone, archive


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing, environ={"PATCHER_WATCH_SECONDS": "60"})
    try:
        await patcher.start(agent=True)
        await patcher.publish(archive(tmp_path / "release"))
        await patcher.publish(archive(tmp_path / "before", main="print('before')"), version="1.2.0")
        await set_policy(patcher, require_staging=False)
        quiet(patcher)
        yield patcher
    finally:
        await patcher.stop()


def quiet(alone: PatcherAlone) -> None:
    """The plugin lives, and nobody sends it anything."""
    told = alone.ingest.telemetry
    told.before.CopyFrom(ingest_pb2.TelemetrySums(beats=20))
    told.before.duration.FromSeconds(20)
    told.after.CopyFrom(ingest_pb2.TelemetrySums(beats=6))
    told.after.duration.FromSeconds(6)


def busy(alone: PatcherAlone, failures: int) -> None:
    told = alone.ingest.telemetry
    told.after.CopyFrom(ingest_pb2.TelemetrySums(beats=30, webhook_attempts=60, webhook_failures=failures))
    told.after.duration.FromSeconds(30)


async def committed(alone: PatcherAlone) -> str:
    await alone.decide(type="plugin_down", severity=events_pb2.SEVERITY_MEDIUM)
    attempt = await of(alone, "p1", "success")
    assert attempt.verdict.low_evidence
    assert attempt.watch.state == "watching"
    assert "low evidence" in attempt.history[-1].reason
    return str(attempt.name)


async def ended(alone: PatcherAlone) -> events_pb2.AttemptWatchEnded:
    return (await alone.plane.wait_for_fact("attempt_watch_ended", 20)).attempt_watch_ended


async def test_no_traffic_commits_in_time_says_so_and_holds_no_slot(alone: PatcherAlone) -> None:
    await committed(alone)
    assert not await alone.plane.sql("SELECT 1 FROM patcher.slots")
    (told,) = await alone.plane.facts("attempt_succeeded")
    assert told.attempt_succeeded.verdict.low_evidence


async def test_traffic_that_works_is_proof(alone: PatcherAlone) -> None:
    name = await committed(alone)
    busy(alone, failures=0)
    told = await ended(alone)
    assert (f"attempts/{told.attempt}", told.outcome, told.rollback) == (name, "proven", "")
    assert (await of(alone, "p1", "success")).watch.state == "proven"
    assert told.generation == alone.ingest.plugins["p1"].generation


async def test_a_release_that_spoils_most_webhooks_is_taken_back_like_any_other(alone: PatcherAlone) -> None:
    await committed(alone)
    assert alone.ingest.plugins["p1"].release == "1.2.3"
    busy(alone, failures=36)
    told = await ended(alone)
    assert (told.outcome, bool(told.rollback)) == ("worse", True)
    back = await whole(alone, f"attempts/{told.rollback}")
    assert (back.action, back.incident, back.from_release) == (events_pb2.ACTION_ROLLBACK, "", "1.2.3")
    await until(lambda: alone.ingest.plugins["p1"].release == "1.2.0", 30, what="the plugin runs what ran before")


async def test_a_plugin_that_runs_something_else_is_watched_no_more(alone: PatcherAlone) -> None:
    await committed(alone)
    alone.ingest.plugins["p1"].generation += 3
    assert (await ended(alone)).outcome == "superseded"
