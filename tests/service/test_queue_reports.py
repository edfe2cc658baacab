"""Error reports: counted once however often they are told, refused one by one, and what a recurrence does."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from deploy.local.testing import BackingServices, until
from libs.common.errors import Invalid, NotFound, Refused
from libs.common.names import new_id
from prunella.v1 import queue_pb2 as pb
from prunella.v1.events_pb2 import SEVERITY_CRITICAL
from prunella.v1.queue_pb2_grpc import QueueServiceStub
from services.queue import triage
from tests.service.queue_alone import NETWORK, STRATEGY, UNHEARD, QueueAlone, queue_alone, reason_of


@pytest.fixture
async def queue(backing: BackingServices) -> AsyncIterator[QueueAlone]:
    async with queue_alone(backing, QUEUE_WATCH_SECONDS="600") as started:
        yield started


async def test_a_batch_is_one_report_for_each_kind_of_error(queue: QueueAlone) -> None:
    errors = [queue.error(f"request {number} failed", id="", plugin=f"p-{number % 3}") for number in range(60)]
    outcomes = await queue.report(*errors)
    assert len({outcome.report for outcome in outcomes}) == 3
    assert [outcome.created for outcome in outcomes] == [True] * 3 + [False] * 57
    groups = [await queue.group(name) for name in sorted({outcome.report for outcome in outcomes})]
    assert [group.occurrences for group in groups] == [20, 20, 20]
    assert len(await queue.plane.facts("error_reported")) == 3


async def test_a_counter_told_again_adds_only_what_is_new(queue: QueueAlone) -> None:
    (first,) = await queue.report(queue.error(UNHEARD, id="c-1", occurrences=5))
    for told in (5, 3, 9, 9):
        (again,) = await queue.report(queue.error(UNHEARD, id="c-1", occurrences=told))
        assert (again.report, again.created) == (first.report, False)
    assert (await queue.group(first.report)).occurrences == 9
    await queue.report(queue.error(UNHEARD, id="c-2", occurrences=2))
    assert (await queue.group(first.report)).occurrences == 11
    # Both counters in one batch, the old one repeated: the agent restarted between two of its messages.
    await queue.report(
        queue.error(UNHEARD, id="c-2", occurrences=4),
        queue.error(UNHEARD, id="c-3", occurrences=1),
        queue.error(UNHEARD, id="c-2", occurrences=3),
    )
    assert (await queue.group(first.report)).occurrences == 14


async def test_a_request_delivered_twice_counts_once(queue: QueueAlone) -> None:
    request_id = new_id()
    error = queue.error(UNHEARD, id="")
    first, second = await asyncio.gather(*(queue.report(error, request_id=request_id) for _ in range(2)))
    assert first == second
    assert (await queue.group(first[0].report)).occurrences == 1
    with pytest.raises(Refused) as refusal:
        await queue.report(queue.error("something else"), request_id=request_id)
    assert reason_of(refusal.value) == "REQUEST_ID_REUSED"


async def test_what_is_wrong_is_refused_alone_and_names_its_field(queue: QueueAlone) -> None:
    good = queue.error(UNHEARD)
    bad = {
        "severity": queue.error(severity="apocalyptic"),
        "error": queue.error("", type=""),
        "occurrences": queue.error(occurrences=-1),
        "plugin": queue.error(plugin="../../etc"),
    }
    outcomes = await queue.report(good, *bad.values())
    assert outcomes[0].report
    assert [outcome.field for outcome in outcomes[1:]] == list(bad)
    assert all(outcome.refusal and outcome.message and not outcome.report for outcome in outcomes[1:])
    with pytest.raises(Invalid) as too_many:
        await queue.report(*[good] * 1001)
    assert reason_of(too_many.value) == "TOO_MANY_ERRORS"


async def test_a_service_tells_of_its_own_errors_and_of_nobody_elses(queue: QueueAlone) -> None:
    own, of_a_plugin = pb.ReportedError(package="decider"), queue.error()
    own.error.message = "the ladder broke"
    request = pb.ReportErrorsRequest(errors=[own, of_a_plugin])
    refused = {}
    for caller in ("decider", "ops", "ingest"):
        stub: Any = QueueServiceStub(queue.plane.channel("queue", caller))
        answer = await stub.ReportErrors(request, timeout=5)
        assert answer.outcomes[0].report
        refused[caller] = (answer.outcomes[1].refusal, answer.outcomes[1].field)
    assert refused == {"decider": ("NOT_ITS_OWN", "plugin"), "ops": ("NOT_ITS_OWN", "plugin"), "ingest": ("", "")}


async def test_what_is_odd_is_kept_as_far_as_it_goes(queue: QueueAlone) -> None:
    stack = "\n".join(f'  File "/srv/app.py", line {line}, in handle' for line in range(30_000))
    error = queue.error("a NUL \0 in it, \x1b[31mred\x1b[0m\x07", stack=stack, context={"key\0": "v\0" * 3000})
    (outcome,) = await queue.report(error)
    group = await queue.group(outcome.report)
    assert group.message == "a NUL \ufffd in it, red\ufffd"
    assert len(group.stack) <= 64 * 1024
    assert "characters left out" in group.stack
    assert group.stack.endswith("line 29999, in handle"), "both ends are kept: languages tell the innermost elsewhere"
    assert len(group.context["key\ufffd"]) <= 1000


async def test_opaque_ids_make_no_reports_and_frames_of_php_tell_two_bugs_apart(queue: QueueAlone) -> None:
    ids = [f"pi_3Mtw{number:02}wLkdIwHu7ix28a3tqPA" for number in range(30)]
    stack = "#0 /w/Checkout.php({line}): App\\Cart->{function}('{id}')\n#1 {{main}}"
    errors = [
        queue.error(f"No such payment_intent: {one}", stack=stack.format(line=number, function=function, id=one))
        for function in ("total", "refund")
        for number, one in enumerate(ids)
    ]
    reports = [(await queue.report(error))[0].report for error in errors]
    assert (len(set(reports[:30])), len(set(reports[30:])), len(set(reports))) == (1, 1, 2)


async def test_a_report_that_stays_healed_is_resolved_and_its_strategy_learns(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    assert leased.strategy.name == f"strategies/{STRATEGY}"
    assert leased.traceparent
    queue.after(60)
    task = await queue.complete(leased, method="looked", details='{"steps": []}', tools_used=["host.reach_upstreams"])
    assert task.state == pb.TASK_STATE_COMPLETED
    group = await queue.group(leased.task.report)
    assert (group.state, group.resolved_by) == (pb.REPORT_STATE_RESOLVED_PENDING, "w-1")
    queue.after(599)
    assert (await queue.group(leased.task.report)).state == pb.REPORT_STATE_RESOLVED_PENDING
    queue.after(2)
    await queue.comes_to(leased.task.report, "resolved")
    assert await queue.history(leased.task.report) == ["COMPLETED", "VERIFIED"]
    strategy = await strategy_of(queue)
    assert (strategy.successes, strategy.failures) == (1, 0)
    told = [event.WhichOneof("fact") for event in await queue.plane.facts()]
    assert told == [
        "error_reported", "report_triaged", "task_created", "tasks_claimed", "tasks_finished", "report_resolved",
    ]  # fmt: skip
    counts = await queue.plane.sql("SELECT type, examples FROM queue.classifier_counts")
    assert [(row.type, row.examples) for row in counts] == [("network", 1)]


async def strategy_of(queue: QueueAlone, name: str = STRATEGY) -> pb.Strategy:
    """A strategy as it stands."""
    answer = await queue.person.GetStrategy(pb.GetStrategyRequest(name=f"strategies/{name}"), timeout=5)
    return answer.strategy  # type: ignore[no-any-return]


async def test_a_recurrence_within_the_window_takes_the_success_back(queue: QueueAlone) -> None:
    leased = await queue.a_task(id="c-1", occurrences=1)
    queue.after(10)
    await queue.complete(leased)
    queue.after(10)
    (again,) = await queue.report(queue.error(id="c-1", occurrences=2))
    assert (again.created, again.regression) == (False, True)
    # The only strategy that fits was tried, so a person is asked.
    group = await queue.comes_to(leased.task.report, "escalated")
    assert group.reason.startswith("ALL_TRIED")
    assert await queue.history(leased.task.report) == ["COMPLETED", "RECURRED"]
    strategy = await strategy_of(queue)
    assert (strategy.successes, strategy.failures) == (0, 1)
    queue.after(700)
    await queue.report(queue.error(id="c-1", occurrences=3))
    assert (await queue.group(leased.task.report)).state == pb.REPORT_STATE_ESCALATED, "from here on it only counts"


async def test_a_repeat_or_a_late_word_is_no_recurrence(queue: QueueAlone) -> None:
    leased = await queue.a_task(id="c-1", occurrences=3)
    queue.after(60)
    await queue.complete(leased)
    await queue.report(queue.error(id="c-1", occurrences=3))
    late = queue.error(id="c-1", occurrences=4)
    late.error.time.FromDatetime(queue.clock.now() - timedelta(seconds=30))
    await queue.report(late)
    group = await queue.group(leased.task.report)
    assert (group.state, group.occurrences) == (pb.REPORT_STATE_RESOLVED_PENDING, 4)


@pytest.mark.parametrize("ended_by", ["machine", "person"])
async def test_a_later_recurrence_is_a_regression_and_begins_anew(queue: QueueAlone, ended_by: str) -> None:
    leased = await queue.a_task(id="c-1", occurrences=1)
    name = leased.task.report
    if ended_by == "person":
        closed = await queue.person.CloseErrorReport(pb.CloseErrorReportRequest(name=name, reason="known"), timeout=5)
        assert closed.report.state == pb.REPORT_STATE_CLOSED
    else:
        await queue.complete(leased)
        queue.after(601)
        await queue.comes_to(name, "resolved")
    queue.after(60)
    (again,) = await queue.report(queue.error(id="c-1", occurrences=2))
    assert (again.report, again.regression) == (name, True)
    (next_task,) = await queue.claim()
    assert next_task.task.report == name
    assert next_task.task.name != leased.task.name
    group = await queue.group(name)
    assert (group.state, group.regressions, group.occurrences) == (pb.REPORT_STATE_IN_PROGRESS, 1, 2)
    assert [event.error_reported.regression for event in await queue.plane.facts("error_reported")] == [False, True]


async def test_what_nobody_understands_ends_at_a_person_with_a_reason(queue: QueueAlone) -> None:
    (outcome,) = await queue.report(queue.error(UNHEARD))
    group = await queue.comes_to(outcome.report, "escalated")
    assert group.reason.startswith("UNSURE")
    assert group.triage.origin == "none"
    assert await queue.claim(wait=0) == []


async def test_a_triage_that_fails_is_no_loop(queue: QueueAlone, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(*_: Any) -> Any:
        calls.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(triage, "classify", broken)
    (outcome,) = await queue.report(queue.error(NETWORK))
    group = await queue.comes_to(outcome.report, "escalated")
    assert "ZeroDivisionError" in group.reason
    assert len(calls) == 1


async def test_lists_filter_and_come_in_pages(queue: QueueAlone) -> None:
    for number in range(5):
        queue.after(1)
        await queue.report(queue.error(UNHEARD, plugin=f"p-{number}"))
    await until(lambda: counted(queue, "escalated", 5))
    seen: list[str] = []
    request = pb.ListErrorReportsRequest(page_size=2, state=pb.REPORT_STATE_ESCALATED)
    while True:
        answer = await queue.person.ListErrorReports(request, timeout=5)
        seen += [report.plugin for report in answer.reports]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert seen == ["p-4", "p-3", "p-2", "p-1", "p-0"]
    one = await queue.person.ListErrorReports(pb.ListErrorReportsRequest(plugin="p-3"), timeout=5)
    assert [report.plugin for report in one.reports] == ["p-3"]
    severe = await queue.person.ListErrorReports(pb.ListErrorReportsRequest(min_severity=SEVERITY_CRITICAL), timeout=5)
    assert list(severe.reports) == []
    with pytest.raises(Invalid):
        await queue.person.ListErrorReports(pb.ListErrorReportsRequest(page_token="nonsense"), timeout=5)


async def counted(queue: QueueAlone, state: str, number: int) -> bool:
    """Whether so many reports are in a state."""
    return (await queue.stats()).reports[state] == number


async def test_a_report_explains_itself(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    told = await queue.person.ExplainErrorReport(pb.ExplainErrorReportRequest(name=leased.task.report), timeout=5)
    assert told.grouping[0] == "package shop"
    assert told.triage.type == "network"
    assert [(fit.strategy.name, fit.best) for fit in told.strategies] == [(f"strategies/{STRATEGY}", True)]
    for name in (f"errorReports/{new_id()}", "errorReports/no-uuid"):
        with pytest.raises(NotFound):
            await queue.group(name)
    with pytest.raises(Invalid):
        await queue.group("tasks/x")


async def test_closing_ends_the_work_as_well_and_happens_once(queue: QueueAlone) -> None:
    leased = await queue.a_task()
    request = pb.CloseErrorReportRequest(name=leased.task.report, reason="not ours", request_id=new_id())
    first = await queue.person.CloseErrorReport(request, timeout=5)
    assert first == await queue.person.CloseErrorReport(request, timeout=5)
    assert (await queue.task(leased.task.name)).state == pb.TASK_STATE_CANCELLED
    assert await queue.history(leased.task.report) == ["CANCELLED", "CLOSED"]
    assert len(await queue.plane.facts("report_closed", "task_cancelled")) == 2


async def test_counts_are_what_the_rows_say(queue: QueueAlone) -> None:
    for number in range(4):
        await queue.report(queue.error(plugin=f"p-{number}"))
    leased = [*await queue.claim(), *await queue.claim(), *await queue.claim()]
    await queue.complete(leased[0])
    await queue.complete(leased[1], success=False)
    await queue.complete(leased[2], success=False, permanent=True)
    stats = await queue.stats()
    tasks, reports = await queue.true_counts()
    assert {state: number for state, number in stats.tasks.items() if number} == tasks
    assert {state: number for state, number in stats.reports.items() if number} == reports
    assert stats.total == 4
    assert stats.success_rate_percent == 50
    lines = {line.state: line for line in stats.task_states}
    assert {state: line.count for state, line in lines.items()} == tasks
    assert lines["completed"].mean_priority == leased[0].task.priority
