"""Commands through the stream: delivered until the agent has them, permitted by patcher, ended by the agent's word."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local.testing import Servers, until
from libs.common.errors import Denied, Invalid, Refused, Unavailable
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import ingest_pb2, patcher_pb2
from tests.service.ingest_alone import ARTIFACT, Agent, Alone


@pytest.fixture(scope="module")
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


def word(command: pb.Command, outcome: int, **values: object) -> pb.CommandResult:
    return pb.CommandResult(
        command=command.id,
        attempt=command.attempt,
        generation=command.generation,
        fence=command.fence,
        outcome=outcome,
        release="1.2.3",
        **values,  # type: ignore[arg-type]
    )


async def record(alone: Alone, command: pb.Command) -> ingest_pb2.IssuedCommand:
    request = ingest_pb2.GetCommandRequest(name=f"commands/{command.id}")
    return (await alone.ask().GetCommand(request)).command


async def test_a_command_is_written_at_once_and_again_until_its_receipt(alone: Alone) -> None:
    agent = await alone.agent()
    issued = await alone.issue(agent)
    sent = await agent.receives("command")
    assert (sent.id, sent.generation, sent.fence, sent.envelope) == (issued.id, 1, 1, b"{}")
    await until(lambda: sum(m.HasField("command") for m in agent.received) >= 2, 6)
    await agent.send(pb.CommandReceived(command=issued.id))
    await until(lambda: _state(alone, issued, "received"))
    delivered = await record(alone, issued)
    assert (delivered.first_write_time.ToDatetime() - delivered.issue_time.ToDatetime()).total_seconds() < 1


async def _state(alone: Alone, command: pb.Command, state: str) -> bool:
    return (await record(alone, command)).state == state


async def test_a_new_session_hears_what_was_issued_meanwhile(alone: Alone) -> None:
    agent = await alone.agent()
    await agent.leave()
    issued = await alone.issue(agent)
    await agent.connect()
    assert (await agent.receives("command")).id == issued.id


async def test_a_repeated_request_gets_the_first_command(alone: Alone) -> None:
    agent = await alone.agent()
    first = await alone.issue(agent, request_id=f"errand-{agent.plugin}")
    again = await alone.issue(agent, request_id=f"errand-{agent.plugin}")
    assert first == again
    with pytest.raises(Refused) as refused:
        await alone.issue(agent, request_id=f"errand-{agent.plugin}", digest="e" * 64)
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert len(await alone.plane.facts("command_issued", plugin=agent.plugin)) == 1


async def test_a_newer_command_supersedes_the_one_before(alone: Alone) -> None:
    agent = await alone.agent()
    first = await alone.issue(agent)
    second = await alone.issue(agent)
    assert (second.generation, second.fence > first.fence) == (first.generation + 1, True)
    assert (await record(alone, first)).state == "superseded"


async def test_only_patcher_issues_commands(alone: Alone) -> None:
    agent = await alone.agent()
    with pytest.raises(Denied):
        await alone.ask("decider").IssueCommand(ingest_pb2.IssueCommandRequest(plugin=agent.plugin))
    with pytest.raises(Invalid, match="generation"):
        await alone.issue(agent, pb.COMMAND_KIND_COMMIT)


async def test_a_permit_is_patchers_to_give(alone: Alone) -> None:
    alone.patcher.answer = patcher_pb2.AuthorizeApplyResponse(granted=True, permit="p-1")
    agent = await alone.agent()
    issued = await alone.issue(agent)
    asked = pb.BeginApply(
        command=issued.id, attempt=issued.attempt, generation=issued.generation, fence=issued.fence, nonce="n-1"
    )
    await agent.send(asked)
    permit = await agent.receives("permit")
    assert (permit.granted, permit.permit, permit.nonce) == (True, "p-1", "n-1")
    assert (alone.patcher.asked[-1].plugin, alone.patcher.asked[-1].request_id) == (agent.plugin, "n-1")


@pytest.mark.parametrize(
    ("answer", "gate"),
    [
        (patcher_pb2.AuthorizeApplyResponse(granted=False, gate="KILL_SWITCH"), "KILL_SWITCH"),
        (Unavailable("away", reason="AWAY"), "NO_ANSWER"),
    ],
)
async def test_without_a_yes_there_is_no_permit(alone: Alone, answer: object, gate: str) -> None:
    alone.patcher.answer = answer  # type: ignore[assignment]
    agent = await alone.agent()
    issued = await alone.issue(agent)
    await agent.send(pb.BeginApply(command=issued.id, generation=issued.generation, fence=issued.fence, nonce="n"))
    permit = await agent.receives("permit")
    assert (permit.granted, permit.gate) == (False, gate)


async def test_no_permit_for_a_command_that_is_over_or_anothers(alone: Alone) -> None:
    agent, other = await alone.agent(), await alone.agent()
    first = await alone.issue(agent)
    await alone.issue(agent)
    await agent.send(pb.BeginApply(command=first.id, generation=first.generation, fence=first.fence, nonce="n"))
    assert (await agent.receives("permit")).gate == "COMMAND_SUPERSEDED"
    await other.send(pb.BeginApply(command=first.id, generation=first.generation, fence=first.fence, nonce="n"))
    assert (await other.receives("permit")).gate == "COMMAND_UNKNOWN"
    assert agent.plugin not in {asked.plugin for asked in alone.patcher.asked}


async def test_a_word_is_recorded_once_however_often_it_comes(alone: Alone) -> None:
    agent = await alone.agent()
    issued = await alone.issue(agent)
    for _ in range(3):
        await agent.send(word(issued, pb.COMMAND_OUTCOME_APPLIED))
    await until(lambda: sum(m.HasField("result_ack") for m in agent.received) == 3)
    (told,) = await alone.plane.facts("command_finished", plugin=agent.plugin)
    assert (told.command_finished.outcome, told.command_finished.release) == ("applied", "1.2.3")
    settings = await agent.receives("settings", lambda found: found.beat_interval.ToTimedelta().total_seconds() == 1)
    assert settings.session_epoch == 1


async def test_the_first_final_word_of_a_generation_stands(alone: Alone) -> None:
    agent = await alone.agent()
    update = await alone.issue(agent)
    await agent.send(word(update, pb.COMMAND_OUTCOME_APPLIED))
    await agent.receives("result_ack")
    commit = await alone.issue(agent, pb.COMMAND_KIND_COMMIT, generation=update.generation)
    await agent.send(word(update, pb.COMMAND_OUTCOME_REVERTED, unsolicited=True))
    await agent.receives("result_ack", lambda ack: ack.outcome == pb.COMMAND_OUTCOME_REVERTED)
    await agent.send(word(commit, pb.COMMAND_OUTCOME_COMMITTED))
    await agent.receives("result_ack", lambda ack: ack.outcome == pb.COMMAND_OUTCOME_COMMITTED)
    told = [fact.command_finished for fact in await alone.plane.facts("command_finished", plugin=agent.plugin)]
    assert [(one.outcome, one.unsolicited) for one in told] == [("applied", False), ("reverted", True)]


async def test_a_word_on_anothers_command_is_rejected(alone: Alone) -> None:
    agent, other = await alone.agent(), await alone.agent()
    issued = await alone.issue(agent)
    await other.send(word(issued, pb.COMMAND_OUTCOME_APPLIED))
    assert (await other.receives("rejection")).reason == "COMMAND_UNKNOWN"
    assert not await alone.plane.facts("command_finished", plugin=agent.plugin)


async def test_the_artifact_of_a_live_command_comes_through(alone: Alone) -> None:
    agent: Agent = await alone.agent()
    issued = await alone.issue(agent)
    pieces = [
        piece.chunk
        async for piece in agent.stub.FetchArtifact(
            pb.FetchArtifactRequest(digest=issued.digest, offset=1000), metadata=agent.metadata
        )
    ]
    assert b"".join(pieces) == ARTIFACT[1000:]
