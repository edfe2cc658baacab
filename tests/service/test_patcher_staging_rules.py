"""What staging makes of its runs: a flake speaks against nobody, only passes are kept, and waiting costs no time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices, until
from prunella.v1 import events_pb2, patcher_pb2
from services.patcher.policy import Isolation
from tests.service.governance import of, set_policy
from tests.service.patcher_alone import PatcherAlone, archive
from tests.service.staging_runner import StagingRunner


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start()
        await patcher.publish(archive(tmp_path / "release"))
        await set_policy(patcher, max_in_flight=50, max_in_flight_percentage=100.0)
        yield patcher
    finally:
        await patcher.stop()


def sandbox(alone: PatcherAlone, **values: object) -> StagingRunner:
    made = alone.ctx.runner = StagingRunner(**values)  # type: ignore[arg-type]
    return made


async def staged(alone: PatcherAlone, plugin: str) -> events_pb2.AttemptStaged:
    return (await alone.plane.wait_for_fact("attempt_staged", 15, plugin=plugin)).attempt_staged


async def test_a_release_that_fails_once_and_passes_then_goes_on_and_says_so(alone: PatcherAlone) -> None:
    runner = sandbox(alone, ends=[False, True])
    await alone.decide(plugin="p1")
    await of(alone, "p1", "applying")
    told = await staged(alone, "p1")
    assert (told.passed, told.runs, told.first_failure, runner.runs) == (True, 2, "smoke: run 1", 2)
    assert told.isolation == "namespaces"


async def test_a_failure_is_never_kept_and_a_pass_is(alone: PatcherAlone) -> None:
    runner = sandbox(alone, ends=[False, False])
    await alone.decide(plugin="p1")
    failed = await of(alone, "p1", "failed")
    assert "smoke: run 2" in failed.reason
    await alone.decide(plugin="p2")
    await of(alone, "p2", "applying")
    assert runner.runs == 3, "what failed is proven anew"
    await alone.decide(plugin="p3")
    await of(alone, "p3", "applying")
    assert (runner.runs, (await staged(alone, "p3")).cached) == (3, True)


async def test_a_pass_under_less_isolation_proves_nothing_under_more(alone: PatcherAlone) -> None:
    await set_policy(alone, min_isolation=patcher_pb2.ISOLATION_NONE)
    runner = sandbox(alone, gives=Isolation.NONE)
    await alone.decide(plugin="p1")
    await of(alone, "p1", "applying")
    runner.gives = Isolation.NAMESPACES
    await alone.decide(plugin="p2")
    await of(alone, "p2", "applying")
    assert runner.runs == 2


async def test_what_was_proven_under_too_little_is_not_permitted_once_the_policy_asks_for_more(
    alone: PatcherAlone,
) -> None:
    await set_policy(alone, min_isolation=patcher_pb2.ISOLATION_USER)
    sandbox(alone, gives=Isolation.USER)
    await alone.decide(plugin="p1")
    command = await alone.command("update")
    await set_policy(alone, min_isolation=patcher_pb2.ISOLATION_NAMESPACES)
    answer = await alone.ask(command)
    assert (answer.granted, answer.gate) == (False, "ISOLATION")


async def test_waiting_for_a_sandbox_costs_none_of_the_time_a_release_has(alone: PatcherAlone) -> None:
    await set_policy(alone, staging_timeout={"seconds": 1})
    runner = sandbox(alone)
    async with runner.free:
        await alone.decide(plugin="p1")
        began = alone.clock.monotonic()
        waiting = await of(alone, "p1", "staging")
        await until(lambda: alone.clock.monotonic() > began + 3, 20, what="longer than a run may take")
        assert (await of(alone, "p1", "staging")).name == waiting.name
        assert runner.runs == 0
    await of(alone, "p1", "applying")
    assert runner.runs == 1


async def test_attempts_that_wait_for_the_same_proof_share_one_run(alone: PatcherAlone) -> None:
    runner = sandbox(alone)
    async with runner.free:
        for plugin in ("p1", "p2", "p3"):
            await alone.decide(plugin=plugin)
            await of(alone, plugin, "staging")
    for plugin in ("p1", "p2", "p3"):
        await of(alone, plugin, "applying")
    assert runner.runs == 1
