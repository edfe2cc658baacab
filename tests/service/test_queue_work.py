"""Workers and tasks: each task once by a valid token, in order of harm and age, and never stuck."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from deploy.local.testing import BackingServices, until
from libs.common.errors import Invalid, NotFound, Refused, Stale
from libs.common.names import new_id
from prunella.v1 import queue_pb2 as pb
from services.queue import leases
from services.queue.context import TASKS
from services.queue.handlers import claims
from services.queue.store import tasks
from tests.service.queue_alone import NETWORK, STRATEGY, QueueAlone, queue_alone, reason_of


@pytest.fixture
async def queue(backing: BackingServices) -> AsyncIterator[QueueAlone]:
    async with queue_alone(backing) as started:
        yield started


async def waiting(queue: QueueAlone, number: int) -> None:
    """Waits until so many tasks wait for a worker."""

    async def look() -> bool:
        return (await queue.stats()).tasks["pending"] == number

    await until(look, what=f"{number} tasks wait")


async def many(queue: QueueAlone, number: int, **fields: Any) -> None:
    """Makes so many tasks, each of another plugin."""
    await queue.report(*(queue.error(plugin=f"p-{place}", **fields) for place in range(number)))
    await waiting(queue, number)


async def test_a_worker_that_waits_hears_of_work_at_once(queue: QueueAlone) -> None:
    claiming = asyncio.create_task(queue.claim(wait=20))
    await asyncio.sleep(0)
    await queue.report(queue.error())
    (leased,) = await claiming
    assert leased.task.state == pb.TASK_STATE_PROCESSING
    assert leased.task.lease_expire_time.ToDatetime() - queue.clock.now().replace(tzinfo=None) == timedelta(seconds=30)
    assert list(leased.task.tools) == ["host.reach_upstreams", "host.resolve_names"]
    assert leased.strategy.check.comparison == "equals"
    assert leased.report.message == NETWORK


def claims_sleep(queue: QueueAlone, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Lets claims look again only when they are woken; the event is set when one sleeps."""
    database = queue.plane.services["queue"].ctx.database
    asleep, wait = asyncio.Event(), database.wait

    async def tell(name: str, timeout: float) -> None:
        if name == TASKS:
            asleep.set()
        await wait(name, timeout)

    monkeypatch.setattr(claims, "POLL_SECONDS", 30.0)
    monkeypatch.setattr(database, "wait", tell)
    return asleep


async def test_work_that_is_enqueued_wakes_a_waiting_worker(queue: QueueAlone, monkeypatch: pytest.MonkeyPatch) -> None:
    leased = await queue.a_task()
    await queue.complete(leased, success=False, permanent=True)
    asleep = claims_sleep(queue, monkeypatch)
    for _ in range(2):
        asleep.clear()
        claiming = asyncio.create_task(queue.claim(wait=20))
        await asyncio.wait_for(asleep.wait(), 10)
        await queue.person.RetryTask(pb.RetryTaskRequest(name=leased.task.name), timeout=5)
        # It would look again by itself only after the wait it was granted.
        (again,) = await asyncio.wait_for(claiming, 15)
        await queue.complete(again, success=False, permanent=True)


async def test_a_worker_gets_only_what_its_tools_can_do(queue: QueueAlone) -> None:
    await many(queue, 1)
    assert await queue.claim(wait=0, any_tools=False) == []
    assert await queue.claim(wait=0, any_tools=False, tools=["host.reach_upstreams"]) == []
    able = ["host.reach_upstreams", "host.resolve_names", "relay.status"]
    (leased,) = await queue.claim(wait=0, any_tools=False, tools=able)
    assert leased.task.strategy == f"strategies/{STRATEGY}"


async def test_among_several_tool_sets_the_most_urgent_comes_first(queue: QueueAlone) -> None:
    disk = queue.error("no space left on device", plugin="p-disk", type="OSError")
    await queue.report(disk, *(queue.error(plugin=f"p-{place}") for place in range(3)))
    await waiting(queue, 4)
    urgent = await queue.plane.sql("SELECT id FROM queue.tasks ORDER BY rank, id")
    claimed = [*await queue.claim(2, wait=0, omit_details=True), *await queue.claim(5, wait=0, omit_details=True)]
    assert [one.task.name for one in claimed] == [f"tasks/{row.id}" for row in urgent]
    assert len({tuple(one.task.tools) for one in claimed}) == 2
    assert not claimed[0].HasField("report")


async def test_a_lower_priority_wins_once_it_has_waited_long_enough(queue: QueueAlone) -> None:
    await queue.report(queue.error(plugin="p-low", severity="low"))
    await waiting(queue, 1)
    queue.after(leases.STEP_SECONDS - 1)
    await queue.report(queue.error(plugin="p-high", severity="high"))
    await waiting(queue, 2)
    rows = await queue.plane.sql("SELECT plugin, priority FROM queue.tasks ORDER BY rank")
    assert [row.plugin for row in rows] == ["p-high", "p-low"]
    assert rows[0].priority > rows[1].priority
    steps = rows[0].priority - rows[1].priority
    queue.after(leases.STEP_SECONDS * steps)
    await queue.report(queue.error(plugin="p-late", severity="high"))
    await waiting(queue, 3)
    claimed = await queue.claim(3, wait=0)
    assert [one.task.plugin for one in claimed] == ["p-high", "p-low", "p-late"]


async def test_two_workers_that_race_share_the_tasks_without_a_double(queue: QueueAlone) -> None:
    await many(queue, 60)

    async def worker(name: str) -> list[str]:
        done: list[str] = []
        while claimed := await queue.claim(3, wait=0, worker=name, omit_details=True):
            ends = [pb.CompleteTaskRequest(name=one.task.name, token=one.token, success=True) for one in claimed]
            answer = await queue.worker.CompleteTasks(pb.CompleteTasksRequest(completions=ends), timeout=10)
            assert (answer.completed, list(answer.refusals)) == (len(ends), [])
            done += [one.task.name for one in claimed]
        return done

    shares = await asyncio.gather(*(worker(f"w-{number}") for number in range(4)))
    names = [name for share in shares for name in share]
    assert len(names) == len(set(names)) == 60
    finished = [
        end.task for event in await queue.plane.facts("tasks_finished") for end in event.tasks_finished.outcomes
    ]
    assert len(finished) == len(set(finished)) == 60


async def test_a_failed_try_waits_and_the_fourth_goes_to_a_person(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    name = leased.task.name
    for attempt, (least, most) in enumerate(((24, 36), (96, 144), (240, 360)), start=1):
        task = await queue.complete(leased, success=False, failure="TOOL_FAILED")
        assert (task.state, task.attempts) == (pb.TASK_STATE_RETRYING, attempt)
        delay = (task.run_time.ToDatetime() - queue.clock.now().replace(tzinfo=None)).total_seconds()
        assert least <= delay <= most
        queue.after(delay - 1)
        assert await queue.claim(wait=0) == []
        queue.after(1.1)
        (leased,) = await queue.claim()
        assert leased.task.name == name
        assert [entry.outcome for entry in leased.history] == ["TOOL_FAILED"] * attempt
    task = await queue.complete(leased, success=False, failure="CHECK_FAILED", details='{"check": {"status": "down"}}')
    assert (task.state, task.attempts) == (pb.TASK_STATE_FAILED, 4)
    group = await queue.group(task.report)
    assert group.state == pb.REPORT_STATE_ESCALATED
    assert "CHECK_FAILED" in group.reason
    (escalated,) = await queue.plane.facts("report_escalated")
    assert list(escalated.report_escalated.tried_strategies) == [STRATEGY]
    strategy = await queue.person.GetStrategy(pb.GetStrategyRequest(name=f"strategies/{STRATEGY}"), timeout=5)
    assert (strategy.strategy.successes, strategy.strategy.failures) == (0, 1)


async def test_a_permanent_failure_is_not_tried_again(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    task = await queue.complete(leased, success=False, failure="BUDGET_SPENT", permanent=True)
    assert (task.state, task.attempts) == (pb.TASK_STATE_FAILED, 1)
    assert (await standing(queue)).failures == 1


async def standing(queue: QueueAlone) -> pb.Strategy:
    """What became of the strategy so far."""
    answer = await queue.person.GetStrategy(pb.GetStrategyRequest(name=f"strategies/{STRATEGY}"), timeout=5)
    return answer.strategy  # type: ignore[no-any-return]


async def test_a_try_that_was_not_allowed_says_nothing_of_the_strategy_and_an_approval_brings_it_back(
    queue: QueueAlone,
) -> None:
    leased = await queue.a_task()
    await queue.complete(leased, success=False, failure="WRITE_NOT_APPROVED", permanent=True)
    assert (await queue.group(leased.task.report)).state == pb.REPORT_STATE_ESCALATED
    assert (await standing(queue)).failures == 0
    request = pb.ApproveStrategyRequest(name=f"strategies/{STRATEGY}", reason="it may")
    await queue.person.ApproveStrategy(request, timeout=5)
    (again,) = await queue.claim()
    assert again.task.report == leased.task.report
    assert again.strategy.approved


async def test_a_task_that_no_worker_has_the_tools_for_comes_to_a_person(queue: QueueAlone) -> None:
    await many(queue, 2)
    sweeps = queue.plane.services["queue"].parts
    (strand,) = [part for part in sweeps if part.name == "queue sweeps"]
    queue.after(3500)
    (leased,) = await queue.claim(wait=0)
    queue.after(200)
    assert await strand.run_once("strand") == 0, "a worker with these tools asked a moment ago"
    await queue.task_comes_to(leased.task.name, "pending")
    queue.after(3601)
    assert await strand.run_once("strand") in (0, 1, 2)

    async def ended() -> bool:
        return (await queue.stats()).tasks["failed"] == 2

    await until(ended, what="both are ended")
    assert await queue.history(leased.task.report) == ["LEASE_LOST", "NO_WORKER"]
    told = await queue.plane.facts("tasks_recovered")
    tokens = [end.token for fact in told for end in fact.tasks_recovered.outcomes if end.failure == "NO_WORKER"]
    assert tokens == [0, 0], "nobody held them"
    group = await queue.group(leased.task.report)
    assert group.state == pb.REPORT_STATE_ESCALATED
    assert "no worker that has host.reach_upstreams, host.resolve_names asked for work" in group.reason
    assert (await standing(queue)).failures == 0


async def test_lost_leases_are_counted_apart_and_the_third_ends_it(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    for crashes in (1, 2):
        queue.after(31)
        task = await queue.task_comes_to(leased.task.name, "pending")
        assert (task.attempts, task.crashes) == (0, crashes)
        with pytest.raises(Stale) as refusal:
            await queue.complete(leased)
        assert reason_of(refusal.value) == "STALE_TOKEN"
        token = leased.token
        (leased,) = await queue.claim()
        assert leased.token > token
    queue.after(31)
    task = await queue.task_comes_to(leased.task.name, "failed")
    assert (task.attempts, task.crashes) == (0, 3)
    assert await queue.history(task.report) == ["LEASE_LOST"] * 3
    assert (await queue.group(task.report)).state == pb.REPORT_STATE_ESCALATED
    strategy = await queue.person.GetStrategy(pb.GetStrategyRequest(name=f"strategies/{STRATEGY}"), timeout=5)
    assert strategy.strategy.failures == 0, "a crash says nothing about the strategy"


async def test_a_lease_that_is_extended_lives_on_and_one_that_was_lost_does_not(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    request = pb.ExtendTaskRequest(name=leased.task.name, token=leased.token, lease_duration=Duration(seconds=60))
    queue.after(20)
    answer = await queue.worker.ExtendTask(request, timeout=5)
    assert answer.lease_expire_time.ToDatetime() == queue.clock.now().replace(tzinfo=None) + timedelta(seconds=60)
    queue.after(50)
    assert await queue.claim(wait=0.6) == []
    await queue.worker.ExtendTask(request, timeout=5)
    queue.after(61)
    await queue.task_comes_to(leased.task.name, "pending")
    with pytest.raises(Stale):
        await queue.worker.ExtendTask(request, timeout=5)


async def test_a_lease_that_lapsed_is_not_prolonged_and_its_token_counts_until_somebody_else_has_the_task(
    queue: QueueAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: Any, **__: Any) -> tuple[()]:
        return ()

    monkeypatch.setattr(tasks, "reap", nobody)
    leased = await queue.a_task()
    queue.after(31)
    with pytest.raises(Stale) as refusal:
        await queue.worker.ExtendTask(pb.ExtendTaskRequest(name=leased.task.name, token=leased.token), timeout=5)
    assert reason_of(refusal.value) == "LEASE_LAPSED"
    assert (await queue.complete(leased)).state == pb.TASK_STATE_COMPLETED


async def test_an_end_told_twice_is_recorded_once_and_another_end_is_refused(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    assert await queue.complete(leased) == await queue.complete(leased)
    with pytest.raises(Refused) as refusal:
        await queue.complete(leased, success=False)
    assert reason_of(refusal.value) == "TASK_ENDED"
    assert await queue.history(leased.task.report) == ["COMPLETED"]
    assert len(await queue.plane.facts("tasks_finished")) == 1


async def test_in_a_batch_each_end_stands_for_itself(queue: QueueAlone) -> None:
    await many(queue, 3)
    one, two, three = await queue.claim(3)
    ends = [
        pb.CompleteTaskRequest(name=one.task.name, token=one.token, success=True),
        pb.CompleteTaskRequest(name=two.task.name, token=two.token + 7, success=True),
        pb.CompleteTaskRequest(name=f"tasks/{new_id()}", token=1, success=True),
        pb.CompleteTaskRequest(name=three.task.name, token=three.token, success=False, failure="TOOL_FAILED"),
        pb.CompleteTaskRequest(name=one.task.name, token=one.token, success=False),
        pb.CompleteTaskRequest(name=two.task.name, token=two.token, details="no json", success=True),
    ]
    for _ in range(2):
        answer = await queue.worker.CompleteTasks(pb.CompleteTasksRequest(completions=ends), timeout=5)
        reasons = {refusal.index: refusal.reason for refusal in answer.refusals}
        assert reasons == {1: "STALE_TOKEN", 2: "TASK_UNKNOWN", 4: "TASK_GIVEN_TWICE", 5: "BAD_DETAILS"}
        assert answer.completed == 2
    states = [(await queue.task(one.task.name)).state for one in (one, two, three)]
    assert states == [pb.TASK_STATE_COMPLETED, pb.TASK_STATE_PROCESSING, pb.TASK_STATE_RETRYING]


BAD_CLAIMS = {
    "worker": pb.ClaimTasksRequest(any_tools=True),
    "max_tasks": pb.ClaimTasksRequest(worker="w", max_tasks=1001, any_tools=True),
    "lease_duration": pb.ClaimTasksRequest(worker="w", any_tools=True, lease_duration=Duration(seconds=1)),
    "wait_duration": pb.ClaimTasksRequest(worker="w", any_tools=True, wait_duration=Duration(seconds=31)),
    "tools": pb.ClaimTasksRequest(worker="w", tools=["rm -rf /"]),
}
BAD_ENDS: dict[str, dict[str, Any]] = {
    "details": {"details": "[1]"},
    "failure": {"failure": "X", "success": True},
    "method": {"method": "m" * 201},
    "tools_used": {"tools_used": ["a b"]},
    "duration": {"duration": Duration(seconds=-5)},
}


async def test_in_a_batch_an_old_lease_of_a_task_is_refused_and_its_present_one_is_recorded(queue: QueueAlone) -> None:
    old = await queue.a_task()
    queue.after(31)
    await queue.task_comes_to(old.task.name, "pending")
    (now,) = await queue.claim(worker="w-2")
    assert now.task.name == old.task.name
    assert now.token > old.token
    ends = [
        pb.CompleteTaskRequest(name=one.task.name, token=one.token, success=True, method=method)
        for one, method in ((old, "late"), (now, "in time"))
    ]
    for _ in range(2):
        answer = await queue.worker.CompleteTasks(pb.CompleteTasksRequest(completions=ends), timeout=5)
        assert [(one.index, one.reason) for one in answer.refusals] == [(0, "STALE_TOKEN")]
        assert answer.completed == 1
    assert (await queue.task(now.task.name)).state == pb.TASK_STATE_COMPLETED


async def test_bad_input_names_its_field_and_changes_nothing(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    for field, request in BAD_CLAIMS.items():
        with pytest.raises(Invalid) as wrong:
            await queue.worker.ClaimTasks(request, timeout=5)
        assert wrong.value.field == field
    for field, values in BAD_ENDS.items():
        with pytest.raises(Invalid) as wrong:
            await queue.complete(leased, **values)
        assert wrong.value.field == field
    with pytest.raises(Invalid) as long:
        await queue.complete(leased, details='{"a": "' + "x" * 70_000 + '"}')
    assert reason_of(long.value) == "DETAILS_TOO_LONG"
    for name in (f"tasks/{new_id()}", "tasks/no-uuid"):
        with pytest.raises(NotFound):
            await queue.task(name)
        with pytest.raises(NotFound):
            await queue.worker.CompleteTask(pb.CompleteTaskRequest(name=name, token=1), timeout=5)
        with pytest.raises(NotFound):
            await queue.worker.ExtendTask(pb.ExtendTaskRequest(name=name, token=1), timeout=5)
    assert await queue.history(leased.task.report) == []
    assert (await queue.task(leased.task.name)).state == pb.TASK_STATE_PROCESSING


async def test_history_is_only_ever_added_to(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    await queue.complete(leased)
    for statement in ("UPDATE queue.history SET outcome = 'FORGED'", "DELETE FROM queue.history"):
        with pytest.raises(Exception, match="append-only"):
            await queue.plane.services["queue"].ctx.database.transaction(lambda tx, text=statement: tx.run(text))


async def test_nothing_of_a_report_belongs_to_another_merchant_and_history_says_whose_it_is(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    await queue.complete(leased)
    transaction = queue.plane.services["queue"].ctx.database.transaction
    for statement in ("UPDATE queue.tasks SET merchant = 'x'", "UPDATE queue.report_details SET merchant = 'x'"):
        with pytest.raises(Exception, match="foreign key"):
            await transaction(lambda tx, text=statement: tx.run(text))
    (report,) = await queue.plane.sql("SELECT merchant FROM queue.reports")
    owners = "SELECT merchant FROM queue.history UNION ALL SELECT merchant FROM queue.watches"
    assert report.merchant and {row.merchant for row in await queue.plane.sql(owners)} == {report.merchant}
    (entry,) = await queue.plane.sql("SELECT id, create_time FROM queue.history")
    began = timedelta(milliseconds=entry.id.int >> 80)
    assert (entry.id.version, datetime.fromtimestamp(0, UTC) + began) == (7, entry.create_time), "it lies in its week"


async def test_a_waiting_claim_ends_when_the_server_drains(queue: QueueAlone, monkeypatch: pytest.MonkeyPatch) -> None:
    database = queue.plane.services["queue"].ctx.database
    asleep, wait = asyncio.Event(), database.wait

    async def tell(name: str, timeout: float) -> None:
        if name == TASKS:
            asleep.set()
        await wait(name, timeout)

    monkeypatch.setattr(database, "wait", tell)
    claiming = asyncio.create_task(queue.claim(wait=30))
    await asyncio.wait_for(asleep.wait(), 10)
    began = time.monotonic()
    await queue.plane.stop_service("queue")
    assert await claiming == []
    assert time.monotonic() - began < 5
