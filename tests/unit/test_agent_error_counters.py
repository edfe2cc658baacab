"""The counters an agent keeps of its plugin's errors: told until acknowledged, never doubled, bounded."""

from __future__ import annotations

from typing import Any

import pytest

from prunella.v1 import agent_pb2 as pb
from prunella_agent.error_counters import MAX_COUNTERS, MAX_REPORTS, REJECTED_SECONDS, ErrorCounters, from_datagram


def error(message: str = "no cart", **fields: Any) -> pb.ErrorReport:
    return pb.ErrorReport(type="ValueError", message=message, **fields)


def word(number: int) -> str:
    """A message that no other number has, without a digit."""
    return "".join(chr(97 + int(digit)) for digit in str(number))


def told(counters: ErrorCounters, now: float) -> pb.ErrorReports:
    message = counters.next(now)
    assert message is not None
    return message


def acknowledge(counters: ErrorCounters, message: pb.ErrorReports, now: float, *rejected: int) -> None:
    rejections = [pb.BatchRejection(index=index) for index in rejected]
    counters.acknowledge(pb.ErrorsAck(sequence=message.sequence, rejections=rejections), now)


def test_repeats_rise_one_counter_that_keeps_its_id() -> None:
    counters = ErrorCounters()
    counters.add(error("order 1 has no cart"))
    first = told(counters, 0.0)
    acknowledge(counters, first, 0.0)
    counters.add(error("order 2 has no cart", occurrences=41))
    (again,) = told(counters, 1.0).reports
    assert (again.occurrences, again.message) == (42, "order 2 has no cart")
    assert again.id == first.reports[0].id and again.id


def test_the_id_a_plugin_gives_is_not_used() -> None:
    counters = ErrorCounters()
    counters.add(error(id="mine"))
    assert told(counters, 0.0).reports[0].id != "mine"


def test_there_is_at_most_one_message_a_second_and_one_on_its_way() -> None:
    counters = ErrorCounters()
    counters.add(error())
    first = told(counters, 10.0)
    counters.add(error())
    assert counters.next(10.0) is None and counters.next(12.0) is None
    acknowledge(counters, first, 10.2)
    assert counters.next(10.9) is None and counters.due(10.9) == pytest.approx(0.1)
    assert told(counters, 11.0).reports[0].occurrences == 2


def test_everything_told_is_nothing_due() -> None:
    counters = ErrorCounters()
    assert counters.due(0.0) is None
    counters.add(error())
    acknowledge(counters, told(counters, 0.0), 0.0)
    assert (counters.due(100.0), counters.pending) == (None, 0)


def test_without_an_acknowledgement_the_latest_figure_goes_out_again_ever_more_slowly() -> None:
    counters = ErrorCounters(again=(5.0, 60.0))
    counters.add(error())
    first = told(counters, 0.0)
    counters.add(error())
    assert counters.next(4.9) is None
    assert told(counters, 5.0).reports[0].occurrences == 2
    assert counters.next(14.9) is None and counters.next(15.0) is not None
    acknowledge(counters, first, 16.0)
    assert counters.pending == 1, "an answer to an older message says nothing"


def test_a_new_stream_hears_what_the_old_one_did_not_acknowledge() -> None:
    counters = ErrorCounters()
    counters.add(error())
    told(counters, 0.0)
    counters.rewind()
    assert told(counters, 1.0).reports[0].occurrences == 1


def test_what_counts_while_a_message_is_on_its_way_is_told_next() -> None:
    counters = ErrorCounters()
    counters.add(error())
    message = told(counters, 0.0)
    counters.add(error())
    acknowledge(counters, message, 0.5)
    assert counters.pending == 1 and told(counters, 1.0).reports[0].occurrences == 2


def test_what_was_rejected_waits_a_minute_and_loses_nothing() -> None:
    counters = ErrorCounters()
    counters.add(error())
    acknowledge(counters, told(counters, 0.0), 0.0, 0)
    counters.add(error())
    assert counters.next(REJECTED_SECONDS - 1) is None
    counters.add(error("another"))
    assert [report.message for report in told(counters, 2.0).reports] == ["another"]
    counters.rewind()
    assert told(counters, 4.0).reports[0].occurrences == 2


def test_a_message_has_at_most_a_hundred_reports_and_a_quarter_of_a_mebibyte() -> None:
    counters = ErrorCounters()
    for number in range(150):
        counters.add(error(word(number)))
    first = told(counters, 0.0)
    acknowledge(counters, first, 0.0)
    assert (len(first.reports), len(told(counters, 1.0).reports)) == (MAX_REPORTS, 50)
    long = ErrorCounters()
    for number in range(100):
        long.add(error(word(number), stack="x" * 8000))
    assert told(long, 0.0).ByteSize() < 300_000


def test_counters_are_bounded_and_the_untold_go_last() -> None:
    counters = ErrorCounters()
    counters.add(error("told"))
    acknowledge(counters, told(counters, 0.0), 0.0)
    for number in range(MAX_COUNTERS):
        counters.add(error(word(number)))
    assert counters.pending == MAX_COUNTERS
    counters.add(error("one too many"))
    assert counters.pending == MAX_COUNTERS


def test_a_datagram_becomes_a_report() -> None:
    body = {
        "type": "T",
        "message": "m",
        "stack": "s",
        "count": 3,
        "time": 7.5,
        "context": {"a": "b"},
        "severity": "high",
    }
    report = from_datagram({"process": "p", "error": body})
    assert (report.type, report.message, report.stack, report.occurrences) == ("T", "m", "s", 3)
    assert (dict(report.context), report.severity, report.time.ToNanoseconds()) == ({"a": "b"}, "high", 7_500_000_000)


def test_a_severity_nobody_knows_becomes_context() -> None:
    report = from_datagram({"error": {"type": "T", "message": "m", "count": 1, "severity": "fatal"}})
    assert (report.severity, report.context["severity"]) == ("", "fatal")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"error": 1},
        {"error": {"type": "T", "message": "m", "count": 0}},
        {"error": {"type": "T", "message": "m", "count": -1}},
        {"error": {"type": "T", "message": "m", "count": 2**70}},
        {"error": {"type": "T", "message": "m", "count": True}},
        {"error": {"type": "T", "message": "m", "count": 1, "context": [1]}},
        {"error": {"message": "m", "count": 1}},
    ],
    ids=["empty", "number", "none", "negative", "huge", "bool", "list", "no type"],
)
def test_a_datagram_that_is_none_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        from_datagram(body)
