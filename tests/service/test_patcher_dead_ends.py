"""What can never work ends at once, so that the next round begins instead of a deadline."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices
from libs.common.errors import Invalid, Problem, Refused
from prunella.v1 import events_pb2
from tests.service.patcher_alone import IngestStandIn, PatcherAlone, archive, plugin_of


@dataclass
class Refusing(IngestStandIn):
    """Issues no command, and says why when it is told to."""

    answer: Problem | None = None
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def IssueCommand(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuses every time."""
        self.asked.append(request.request_id)
        if self.answer:
            raise self.answer
        return await super().IssueCommand(request, context)


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing, ingest=Refusing())  # type: ignore[abstract] # the rest is not asked
    try:
        await patcher.start()
        await patcher.publish(archive(tmp_path / "release"))
        yield patcher
    finally:
        await patcher.stop()


async def test_a_plugin_that_was_never_switched_has_nothing_to_go_back_to(alone: PatcherAlone) -> None:
    alone.ingest.plugins["p1"] = plugin_of("p1", generation=0)
    await alone.decide(action=events_pb2.ACTION_ROLLBACK, release="", type="plugin_down")
    failed = await alone.attempt("failed", timeout=5)
    assert "nothing is known to go back to" in failed.reason
    assert not alone.ingest.commands


@pytest.mark.parametrize(
    "answer",
    [Refused("the plugin is retired", reason="PLUGIN_RETIRED"), Invalid("no such field", reason="FIELD_INVALID")],
)
async def test_a_command_that_ingest_refuses_is_not_asked_for_again(alone: PatcherAlone, answer: Problem) -> None:
    ingest = alone.ingest
    assert isinstance(ingest, Refusing)
    ingest.answer = answer
    await alone.decide()
    failed = await alone.attempt("failed", timeout=10)
    assert answer.reason in failed.reason
    assert len(ingest.asked) == 1
