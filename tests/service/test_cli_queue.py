"""The command line about errors, tasks, strategies and proposals, against a living plane."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.names import new_id
from prunella.v1 import queue_pb2, queue_pb2_grpc
from tests.service.cli_terminal import Terminal, cli_environment

WRITES = "relay_timeout"


@pytest.fixture(scope="module")
async def queue_plane(servers: Servers) -> AsyncIterator[Plane]:
    backing = await BackingServices.make(servers)
    plane = Plane(backing, environ={"INGEST_BEAT_SECONDS": "1", "QUEUE_WATCH_SECONDS": "600"})
    try:
        await plane.start()
        await plane.agent("shop-7", release="1.2.3")
        yield plane
    finally:
        await plane.stop()
        await backing.discard()


@pytest.fixture
def terminal(queue_plane: Plane, tmp_path: Path) -> Terminal:
    told = {f"PRUNELLA_{name.upper()}_ADDRESS": address for name, address in queue_plane.addresses.items()}
    return Terminal({**cli_environment(tmp_path), **told, "PRUNELLA_KEY": queue_plane.key})


def stub(plane: Plane, caller: str) -> Any:
    return queue_pb2_grpc.QueueServiceStub(plane.channel("queue", caller))


async def an_error(terminal: Terminal, message: str, *words: str) -> str:
    """Reports an error of its own kind on shop-7; its id."""
    answer = await terminal("errors", "report", message, "--plugin", "shop-7", *words, "--json")
    assert answer.code == 0, answer.err
    return str(answer.json["report"]).rpartition("/")[2]


async def until_it_is(terminal: Terminal, report: str, *states: str) -> Any:
    """Waits until a report is in one of these states; the report."""

    async def look() -> Any:
        found = (await terminal("errors", "show", report, "--json")).json["report"]
        return found if found["state"].removeprefix("REPORT_STATE_").lower() in states else None

    return await until(look, 20, what=f"{report} is {' or '.join(states)}")


async def a_task(plane: Plane, terminal: Terminal, message: str) -> tuple[str, str]:
    """An error with a task that waits; their ids."""
    await stub(plane, "operator").ApproveStrategy(
        queue_pb2.ApproveStrategyRequest(name=f"strategies/{WRITES}", reason="tests", request_id=new_id()), timeout=5
    )
    report = await an_error(terminal, message, "--type", "TimeoutError")
    found = await until_it_is(terminal, report, "in_progress")
    return report, str(found["task"]).rpartition("/")[2]


async def test_an_error_is_reported_listed_shown_and_explained(queue_plane: Plane, terminal: Terminal) -> None:
    report = await an_error(terminal, "Cannot read properties of undefined (reading 'total')", "--type", "TypeError")
    again = await terminal("errors", "report", "Cannot read properties of undefined (reading 'total')",
                           "--type", "TypeError", "-p", "shop-7")  # fmt: skip
    assert "was known and counts more" in again.out
    await until_it_is(terminal, report, "in_progress", "escalated")
    listed = await terminal("errors", "--plugin", "shop-7")
    assert report[-8:] in listed.out
    shown = await terminal("errors", "show", report[-8:])
    assert "2 times" in shown.out
    assert "undefined_property" in shown.out
    explained = await terminal("errors", "explain", report[-8:])
    assert "occurrences are one when they share" in explained.out
    assert "taken for" in explained.out


async def test_a_trace_is_found_by_its_error(queue_plane: Plane, terminal: Terminal) -> None:
    report = await an_error(terminal, "the trace of this one is asked for", "--type", "OddError")
    await until_it_is(terminal, report, "escalated")

    async def told() -> Any:
        answer = await terminal("trace", report[-8:])
        # Spans come in any order: what is whole so far may still grow.
        return answer if "\ncomplete: " in answer.out and "triage" in answer.out else None

    answer = await until(told, 30, what="the spans are kept")
    assert "the trace of this one is asked for · escalated" in answer.out
    assert "queue" in answer.out
    assert (await terminal("trace", f"errorReports/{report}")).code == 0


async def test_each_list_is_one_json_array_of_proto_objects(queue_plane: Plane, terminal: Terminal) -> None:
    await a_task(queue_plane, terminal, "timed out while listing")
    for words in (("errors",), ("queue", "list"), ("strategies",), ("proposals",)):
        answer = await terminal(*words, "--json")
        assert (answer.code, answer.err) == (0, "")
        assert isinstance(answer.json, list)
        assert all(name == name.lower() for entry in answer.json for name in entry)
    assert (await terminal("strategies", "--json")).json[0]["name"].startswith("strategies/")


async def test_a_task_is_shown_cancelled_and_given_another_try(queue_plane: Plane, terminal: Terminal) -> None:
    report, task = await a_task(queue_plane, terminal, "timed out in the middle")
    listed = await terminal("queue", "--report", report[-8:])
    assert "shop-7" in listed.out and WRITES in listed.out
    shown = await terminal("queue", "show", task[-8:])
    assert f"prunella errors show {report[-8:]}" in shown.out
    cancelled = await terminal("queue", "cancel", task[-8:], "-m", "not now")
    assert f"task {task[-8:]} is cancelled" in cancelled.out
    tried = await terminal("queue", "retry", task[-8:], "-m", "now", "--priority", "9")
    assert tried.out.strip() == f"task {task[-8:]} is pending, priority 9"


async def test_what_was_tried_is_told_with_its_reason(queue_plane: Plane, terminal: Terminal) -> None:
    report, task = await a_task(queue_plane, terminal, "timed out and tried")
    worker = stub(queue_plane, "worker")
    claim = queue_pb2.ClaimTasksRequest(worker="worker-9", max_tasks=100, any_tools=True)
    claim.lease_duration.FromSeconds(60)
    (leased,) = [one for one in (await worker.ClaimTasks(claim, timeout=5)).tasks if one.task.name.endswith(task)]
    steps = [{"tool": "relay.set_config", "outcome": "error", "answer": "the configuration is locked"}]
    await worker.CompleteTask(
        queue_pb2.CompleteTaskRequest(
            name=leased.task.name, token=leased.token, failure="TOOL_FAILED", method=WRITES,
            details=json.dumps({"steps": steps}), tools_used=["relay.set_config"],
        ), timeout=5,
    )  # fmt: skip
    for words in (("queue", "show", task[-8:]), ("errors", "show", report[-8:])):
        shown = await terminal(*words)
        assert "TOOL_FAILED" in shown.out and "worker-9" in shown.out
    assert "1 of 4" in (await terminal("queue", "show", task[-8:])).out
    assert "retrying" in (await terminal("queue", "--state", "retrying")).out


async def test_figures_are_told_and_never_made_up(queue_plane: Plane, terminal: Terminal) -> None:
    told = (await terminal("queue", "stats", "--json")).json
    assert {"pending", "processing", "retrying", "completed", "failed", "cancelled"} <= set(told["tasks"])
    said = await terminal("queue", "stats")
    assert said.code == 0
    if "success_rate_percent" not in told:
        assert "—" in said.out


async def test_stuck_tasks_are_taken_back_and_old_ones_deleted(queue_plane: Plane, terminal: Terminal) -> None:
    await a_task(queue_plane, terminal, "timed out and stuck")
    claim = queue_pb2.ClaimTasksRequest(worker="gone", max_tasks=100, any_tools=True)
    claim.lease_duration.FromSeconds(600)
    claimed = len((await stub(queue_plane, "worker").ClaimTasks(claim, timeout=5)).tasks)
    assert claimed

    async def taken_back() -> bool:
        answer = await terminal("queue", "reset-stuck", "--minutes", "0.1", "-m", "the worker is gone")
        assert answer.code == 0, answer.err
        return answer.out.split()[0] == str(claimed)

    await until(taken_back, 30, what=f"{claimed} tasks are taken back")
    deleted = await terminal("queue", "cleanup", "--days", "7", "-m", "tidy")
    assert deleted.out.strip() == "0 tasks deleted"


async def test_a_strategy_is_shown_revoked_and_approved(queue_plane: Plane, terminal: Terminal) -> None:
    listed = await terminal("strategies")
    assert WRITES in listed.out
    assert "may use its write tools" in (await terminal("strategies", "approve", WRITES, "-m", "tried it")).out
    assert "may no longer use" in (await terminal("strategies", "revoke", "relay_t", "-m", "not so fast")).out
    shown = await terminal("strategies", "show", WRITES)
    assert "not approved" in shown.out
    assert "relay.set_config" in shown.out
    assert "not so fast" in shown.out


async def test_what_a_program_proposes_a_person_decides(queue_plane: Plane, terminal: Terminal) -> None:
    _, task = await a_task(queue_plane, terminal, "timed out and proposed about")
    asked = [
        (await stub(queue_plane, "mcp").CreateProposal(
            queue_pb2.CreateProposalRequest(
                action="cancel_task", target=f"tasks/{task}", reason=reason, request_id=new_id()
            ), timeout=5,
        )).proposal.name.rpartition("/")[2]
        for reason in ("it cannot help", "really")
    ]  # fmt: skip
    listed = await terminal("proposals", "--state", "open")
    assert "it cannot help" in listed.out
    assert "is rejected" in (await terminal("proposals", "reject", asked[1], "-m", "once is enough")).out
    assert "is approved" in (await terminal("proposals", "approve", asked[0], "-m", "right")).out
    assert "cancelled" in json.dumps((await terminal("queue", "show", task, "--json")).json).lower()


async def test_an_error_is_closed_by_a_person(queue_plane: Plane, terminal: Terminal) -> None:
    report = await an_error(terminal, "something nobody has ever seen zzqx")
    await until_it_is(terminal, report, "escalated")
    closed = await terminal("errors", "close", report[-8:], "-m", "mended by hand")
    assert closed.out.strip() == f"error {report[-8:]} is closed"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("errors", "show", "ffffffff"), 1, "no error begins or ends with 'ffffffff'; see: prunella errors"),
        (("queue", "show", "ffffffff"), 1, "no task begins or ends with 'ffffffff'; see: prunella queue list"),
        (("queue", "list", "--state", "odd"), 2, "use pending, processing, retrying, completed, failed or cancelled"),
        (("errors", "--severity", "odd"), 2, "use low, medium, high or critical"),
        (("queue", "retry", "ffffffff", "-m", "x", "--priority", "11"), 2, "--priority"),
        (("queue", "cancel", "ffffffff"), 2, "--reason"),
        (("queue", "worker", "--config", "no-such-file.toml"), 2, "no-such-file.toml"),
        (("strategies", "show", "nonsense"), 1, "no strategy begins with 'nonsense'"),
        (("proposals", "approve", "ffffffff", "-m", "x"), 1, "no proposal begins or ends with"),
        (("errors", "report", ""), 1, "message"),
        (("errors", "report", "x", "--context", "nonsense"), 2, "is not name=value"),
    ],
)
async def test_what_is_wrong_is_said_without_a_traceback(
    terminal: Terminal, words: tuple[str, ...], code: int, said: str
) -> None:
    answer = await terminal(*words)
    assert answer.code == code, answer.err
    assert said in " ".join(answer.err.replace("│", " ").split())
    assert not answer.out
    assert "Traceback" not in answer.err
