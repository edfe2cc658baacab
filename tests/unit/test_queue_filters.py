"""What lists of the queue may be asked for: what nothing can be called is refused and never ignored."""

import pytest

from libs.common.errors import Invalid
from prunella.v1 import queue_pb2 as pb
from services.queue.wire import reports, tasks

REPORTS = {
    "plugin": pb.ListErrorReportsRequest(plugin="shop\0-7"),
    "type": pb.ListErrorReportsRequest(type="time\nout"),
    "fingerprint": pb.ListErrorReportsRequest(fingerprint="f" * 201),
    "state": pb.ListErrorReportsRequest(state=99),  # type: ignore[arg-type]
    "min_severity": pb.ListErrorReportsRequest(min_severity=99),  # type: ignore[arg-type]
}
TASKS = {
    "plugin": pb.ListTasksRequest(plugin="\0"),
    "worker": pb.ListTasksRequest(worker="w\0"),
    "report": pb.ListTasksRequest(report="\0"),
    "state": pb.ListTasksRequest(state=-1),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("field", REPORTS)
def test_a_list_of_reports_names_the_filter_that_is_wrong(field: str) -> None:
    with pytest.raises(Invalid) as wrong:
        reports.filters(REPORTS[field])
    assert wrong.value.field == field


@pytest.mark.parametrize("field", TASKS)
def test_a_list_of_tasks_names_the_filter_that_is_wrong(field: str) -> None:
    with pytest.raises(Invalid) as wrong:
        tasks.filters(TASKS[field])
    assert wrong.value.field == field


def test_good_filters_are_taken_as_they_are() -> None:
    found = reports.filters(pb.ListErrorReportsRequest(plugin="plugins/p-1", state=pb.REPORT_STATE_NEW, type="timeout"))
    assert (found.plugin, found.state, found.type, found.below_severity) == ("p-1", "new", "timeout", ())
    assert tasks.filters(pb.ListTasksRequest(worker="machine 1, 42")).worker == "machine 1, 42"
