"""What people do with the queue, each twice delivered; and what programs may only propose."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from deploy.local.testing import BackingServices
from libs.common.errors import Denied, Invalid, NotFound, Refused, Stale
from libs.common.names import new_id
from prunella.v1 import queue_pb2 as pb
from tests.service.queue_alone import QueueAlone, queue_alone, reason_of

# A type whose strategy writes, so that a person has to allow it first.
UNDEFINED = "Cannot read properties of undefined (reading 'id')"
WRITING = "strategies/undefined_property_access"


@pytest.fixture
async def queue(backing: BackingServices) -> AsyncIterator[QueueAlone]:
    async with queue_alone(backing) as started:
        yield started


async def twice(call: Any, request: Any) -> Any:
    """Sends a request under one id twice; both answers must be the same."""
    request.request_id = new_id()
    first = await call(request, timeout=5)
    assert first == await call(request, timeout=5)
    return first


async def test_a_person_gives_a_failed_task_another_try_at_once(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    await queue.complete(leased, success=False, permanent=True)
    name = leased.task.name
    answer = await twice(queue.person.RetryTask, pb.RetryTaskRequest(name=name, reason="repaired", priority=10))
    assert (answer.task.state, answer.task.priority, answer.task.attempts) == (pb.TASK_STATE_PENDING, 10, 0)
    (again,) = await queue.claim(wait=0)
    assert again.task.name == name
    assert (await queue.group(leased.task.report)).state == pb.REPORT_STATE_IN_PROGRESS
    with pytest.raises(Refused) as refusal:
        await queue.person.RetryTask(pb.RetryTaskRequest(name=name), timeout=5)
    assert reason_of(refusal.value) == "TASK_PROCESSING"
    await queue.complete(again)
    with pytest.raises(Refused) as refusal:
        await queue.person.RetryTask(pb.RetryTaskRequest(name=name), timeout=5)
    assert reason_of(refusal.value) == "TASK_COMPLETED"
    with pytest.raises(Invalid) as wrong:
        await queue.person.RetryTask(pb.RetryTaskRequest(name=name, priority=11), timeout=5)
    assert wrong.value.field == "priority"
    (fact,) = await queue.plane.facts("task_retried")
    assert (fact.actor, fact.reason) == ("operators/local", "repaired")


async def test_a_retry_is_refused_while_another_task_works_on_the_report(queue: QueueAlone) -> None:
    leased = await queue.a_task(id="c-1", occurrences=1)
    await queue.person.CloseErrorReport(pb.CloseErrorReportRequest(name=leased.task.report), timeout=5)
    queue.after(1)
    await queue.report(queue.error(id="c-1", occurrences=2))
    (other,) = await queue.claim()
    with pytest.raises(Refused) as refusal:
        await queue.person.RetryTask(pb.RetryTaskRequest(name=leased.task.name), timeout=5)
    assert reason_of(refusal.value) == "REPORT_HAS_TASK"
    listed = await queue.person.ListTasks(pb.ListTasksRequest(report=leased.task.report), timeout=5)
    assert [task.name for task in listed.tasks] == [other.task.name, leased.task.name]


async def test_a_cancelled_task_is_worth_nothing_to_its_worker(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    answer = await twice(queue.person.CancelTask, pb.CancelTaskRequest(name=leased.task.name, reason="by hand"))
    assert answer.task.state == pb.TASK_STATE_CANCELLED
    with pytest.raises(Exception, match="not yours any more"):
        await queue.complete(leased)
    group = await queue.group(leased.task.report)
    assert group.state == pb.REPORT_STATE_ESCALATED
    assert "by hand" in group.reason
    assert len(await queue.plane.facts("task_cancelled", "report_escalated")) == 2
    await queue.person.RetryTask(pb.RetryTaskRequest(name=leased.task.name), timeout=5)
    (again,) = await queue.claim(wait=0)
    assert again.token > leased.token


async def test_stuck_tasks_are_taken_back_and_wait_again(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    long = Duration(seconds=600)
    await queue.worker.ExtendTask(
        pb.ExtendTaskRequest(name=leased.task.name, token=leased.token, lease_duration=long), timeout=5
    )
    request = pb.ResetStuckTasksRequest(stuck_duration=Duration(seconds=300), reason="it hangs")
    queue.after(299)
    assert (await queue.person.ResetStuckTasks(request, timeout=5)).tasks == 0
    queue.after(2)
    assert (await twice(queue.person.ResetStuckTasks, request)).tasks == 1
    (again,) = await queue.claim(wait=0)
    assert again.task.crashes == 0
    assert await queue.history(leased.task.report) == ["RESET"]
    with pytest.raises(Invalid):
        await queue.person.ResetStuckTasks(pb.ResetStuckTasksRequest(), timeout=5)


async def test_old_ended_tasks_are_cleaned_up_and_their_history_stays(queue: QueueAlone) -> None:
    done = await queue.a_task(plugin="p-1")
    await queue.complete(done)
    await queue.a_task(plugin="p-2")
    request = pb.CleanUpTasksRequest(days=30)
    assert (await queue.person.CleanUpTasks(request, timeout=5)).tasks == 0
    queue.after(31 * 86400)
    assert (await twice(queue.person.CleanUpTasks, request)).tasks == 1
    (fact,) = await queue.plane.facts("tasks_cleaned_up")
    assert (fact.actor, fact.tasks_cleaned_up.tasks, fact.tasks_cleaned_up.days) == ("operators/local", 1, 30)
    with pytest.raises(NotFound):
        await queue.task(done.task.name)
    assert "COMPLETED" in await queue.history(done.task.report)
    stats = await queue.stats()
    assert stats.total == 1
    assert not stats.HasField("mean_completion_minutes")
    with pytest.raises(Invalid):
        await queue.person.CleanUpTasks(pb.CleanUpTasksRequest(days=0), timeout=5)


async def test_a_cleanup_under_a_reused_id_deletes_nothing(queue: QueueAlone) -> None:
    done = await queue.a_task()
    await queue.complete(done)
    queue.after(31 * 86400)
    await queue.person.CleanUpTasks(pb.CleanUpTasksRequest(days=300, request_id="mine"), timeout=5)
    with pytest.raises(Refused) as refusal:
        await queue.person.CleanUpTasks(pb.CleanUpTasksRequest(days=3, request_id="mine"), timeout=5)
    assert reason_of(refusal.value) == "REQUEST_ID_REUSED"
    assert (await queue.task(done.task.name)).state == pb.TASK_STATE_COMPLETED


async def test_what_writes_waits_for_an_approval_which_brings_it_back(queue: QueueAlone) -> None:
    (outcome,) = await queue.report(queue.error(UNDEFINED, type="TypeError"))
    group = await queue.comes_to(outcome.report, "escalated")
    assert group.reason.startswith("WRITE_NOT_APPROVED")
    answer = await twice(queue.person.ApproveStrategy, pb.ApproveStrategyRequest(name=WRITING, reason="read it"))
    assert (answer.strategy.approved, answer.strategy.approved_by) == (True, "operators/local")
    (leased,) = await queue.claim()
    assert leased.task.report == outcome.report
    assert leased.strategy.approved
    revoked = await twice(queue.person.RevokeStrategy, pb.RevokeStrategyRequest(name=WRITING, reason="too bold"))
    assert not revoked.strategy.approved
    with pytest.raises(Stale):
        await queue.worker.ExtendTask(pb.ExtendTaskRequest(name=leased.task.name, token=leased.token), timeout=5)
    (again,) = await queue.claim()
    assert (again.task.name, again.task.crashes, again.strategy.approved) == (leased.task.name, 0, False)
    assert await queue.history(outcome.report) == ["REVOKED"]
    told = await queue.person.GetStrategy(pb.GetStrategyRequest(name=WRITING), timeout=5)
    assert [entry.reason for entry in told.history] == ["approved: read it", "revoked: too bold"]
    assert [event.strategy_changed.approved for event in await queue.plane.facts("strategy_changed")] == [True, False]
    with pytest.raises(NotFound):
        await queue.person.ApproveStrategy(pb.ApproveStrategyRequest(name="strategies/none"), timeout=5)


async def test_strategies_are_listed_best_first(queue: QueueAlone) -> None:
    answer = await queue.person.ListStrategies(pb.ListStrategiesRequest(), timeout=5)
    sure = [strategy.confidence for strategy in answer.strategies]
    assert len(sure) >= 12
    assert sure == sorted(sure, reverse=True)
    some = await queue.person.ListStrategies(pb.ListStrategiesRequest(type="network"), timeout=5)
    assert {strategy.type for strategy in some.strategies} == {"network"}
    with pytest.raises(Invalid):
        await queue.person.ListStrategies(pb.ListStrategiesRequest(state="great"), timeout=5)


async def propose(queue: QueueAlone, action: str, target: str) -> str:
    """A program proposes something; the proposal's name."""
    request = pb.CreateProposalRequest(action=action, target=target, reason="it looks right")
    answer = await twice(queue.program.CreateProposal, request)
    assert (answer.proposal.state, answer.proposal.author) == ("open", "mcp")
    return str(answer.proposal.name)


async def test_a_program_proposes_and_a_person_decides(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    await queue.complete(leased, success=False, permanent=True)
    name = await propose(queue, "retry_task", leased.task.name)
    assert (await queue.task(leased.task.name)).state == pb.TASK_STATE_FAILED, "a proposal changes nothing else"
    request = pb.ApproveProposalRequest(name=name, reason="agreed")
    with pytest.raises(Denied):
        await queue.program.ApproveProposal(request, timeout=5)
    answer = await twice(queue.person.ApproveProposal, request)
    assert (answer.proposal.state, answer.proposal.decided_by) == ("approved", "operators/local")
    assert (await queue.task(leased.task.name)).state == pb.TASK_STATE_PENDING
    with pytest.raises(Refused):
        await queue.person.RejectProposal(pb.RejectProposalRequest(name=name), timeout=5)


@pytest.mark.parametrize("action", ["cancel_task", "close_report", "approve_strategy"])
async def test_each_action_does_what_it_says(queue: QueueAlone, action: str) -> None:
    leased = await queue.a_task()
    targets = {"cancel_task": leased.task.name, "close_report": leased.task.report, "approve_strategy": WRITING}
    name = await propose(queue, action, targets[action])
    await queue.person.ApproveProposal(pb.ApproveProposalRequest(name=name), timeout=5)
    facts = {"cancel_task": "task_cancelled", "close_report": "report_closed", "approve_strategy": "strategy_changed"}
    (fact,) = await queue.plane.facts(facts[action])
    assert fact.actor == "operators/local"
    assert "mcp" in fact.reason


async def test_nobody_approves_a_proposal_of_their_own(queue: QueueAlone) -> None:
    request = pb.CreateProposalRequest(action="approve_strategy", target=WRITING, reason="please")
    own = (await queue.person.CreateProposal(request, timeout=5)).proposal.name
    with pytest.raises(Denied) as denial:
        await queue.person.ApproveProposal(pb.ApproveProposalRequest(name=own), timeout=5)
    assert reason_of(denial.value) == "OWN_PROPOSAL"
    answer = await queue.person.RejectProposal(
        pb.RejectProposalRequest(name=own, reason="on second thought"), timeout=5
    )
    assert answer.proposal.state == "rejected"


async def test_a_proposal_that_cannot_be_carried_out_stays_open(queue: QueueAlone) -> None:
    name = await propose(queue, "cancel_task", f"tasks/{new_id()}")
    with pytest.raises(NotFound):
        await queue.person.ApproveProposal(pb.ApproveProposalRequest(name=name), timeout=5)
    listed = await queue.person.ListProposals(pb.ListProposalsRequest(state="open"), timeout=5)
    assert [proposal.name for proposal in listed.proposals] == [name]


async def test_a_proposal_expires_after_a_day(queue: QueueAlone) -> None:
    name = await propose(queue, "approve_strategy", WRITING)
    queue.after(86400)
    with pytest.raises(Refused) as refusal:
        await queue.person.ApproveProposal(pb.ApproveProposalRequest(name=name), timeout=5)
    assert reason_of(refusal.value) == "PROPOSAL_DECIDED"
    fact = await queue.plane.wait_for_fact("proposal_decided", timeout=15)
    assert not fact.proposal_decided.approved


BAD_PROPOSALS = {
    "action": pb.CreateProposalRequest(action="drop_tables", target=WRITING, reason="r"),
    "target": pb.CreateProposalRequest(action="cancel_task", target=WRITING, reason="r"),
    "reason": pb.CreateProposalRequest(action="approve_strategy", target=WRITING),
}


async def test_bad_proposals_name_their_field(queue: QueueAlone) -> None:
    for field, request in BAD_PROPOSALS.items():
        with pytest.raises(Invalid) as wrong:
            await queue.program.CreateProposal(request, timeout=5)
        assert wrong.value.field == field
