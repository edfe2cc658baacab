"""A decision becomes an attempt, and the attempt ends as the agent says."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.common.testing import Ground
from tests.service.patcher_alone import PatcherAlone, archive


@pytest.fixture
async def alone(ground: Ground, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(ground)
    try:
        await patcher.start(agent=True)
        await patcher.publish(archive(tmp_path / "release"))
        yield patcher
    finally:
        await patcher.stop()


async def test_a_good_patch_is_staged_applied_watched_and_kept(alone: PatcherAlone) -> None:
    alone.report()
    await alone.decide()
    attempt = await alone.attempt("success")
    states = [step.to_state for step in attempt.history if step.from_state != step.to_state]
    assert states == ["staging", "staged", "applying", "probation", "committing", "success"]
    assert (attempt.staging.tests_run, attempt.staging.passed) == (2, True)
    assert attempt.verdict.result == "pass"
    told = {event.WhichOneof("fact") for event in await alone.plane.facts() if event.source == "patcher"}
    assert told >= {
        "attempt_created", "attempt_staged", "apply_authorized", "attempt_applied", "attempt_committing",
        "attempt_succeeded",
    }  # fmt: skip
