"""Spans find their trace again after a row, a message or an agent; logs name service and trace and no secret."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.common import telemetry
from libs.common.telemetry import FinishedSpan, Telemetry
from libs.common.telemetry.context import format_traceparent, parse_traceparent
from libs.common.telemetry.metrics import OTHER, SERIES

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
END = START + timedelta(seconds=1.5)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def spans(made: Telemetry, exporter: InMemorySpanExporter) -> list:
    made.close()
    return list(exporter.get_finished_spans())


def test_outside_a_trace_there_is_no_traceparent() -> None:
    assert telemetry.current_traceparent() == ""
    assert telemetry.current_trace_id() == ""
    assert telemetry.trace_id("") == ""


def test_a_traceparent_is_carried_into_the_block_and_left_behind() -> None:
    with telemetry.use_traceparent(PARENT):
        assert telemetry.current_traceparent() == PARENT
        with telemetry.use_traceparent(""):
            assert telemetry.current_traceparent() == ""
        assert telemetry.current_trace_id() == "0af7651916cd43dd8448eb211c80319c"
    assert telemetry.current_traceparent() == ""


@pytest.mark.parametrize(
    "damaged", ["", "x", PARENT.upper(), PARENT[:-1], f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01"]
)
def test_a_damaged_traceparent_is_no_trace(damaged: str) -> None:
    with telemetry.use_traceparent(damaged):
        assert telemetry.current_traceparent() == ""


@given(st.text(max_size=60))
def test_parsing_never_fails_and_gives_the_same_text_back(text: str) -> None:
    found = parse_traceparent(text)
    assert found is None or format_traceparent(found) == text


def test_a_new_traceparent_stays_in_its_parents_trace() -> None:
    child = telemetry.new_traceparent(PARENT)
    assert telemetry.trace_id(child) == telemetry.trace_id(PARENT)
    assert child != PARENT
    assert telemetry.trace_id(telemetry.new_traceparent()) not in {"", telemetry.trace_id(PARENT)}


def test_a_span_that_came_as_text_is_the_parent(exporter: InMemorySpanExporter) -> None:
    ingest = Telemetry("ingest", exporter=exporter)
    with telemetry.use_traceparent(PARENT), ingest.span("react incident_opened"):
        here = telemetry.current_traceparent()
    (span,) = spans(ingest, exporter)
    assert telemetry.trace_id(here) == telemetry.trace_id(PARENT)
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.resource.attributes["service.name"] == "ingest"


def test_a_span_made_afterwards_has_its_times_and_the_ids_given_before(exporter: InMemorySpanExporter) -> None:
    ingest = Telemetry("ingest", exporter=exporter)
    own = telemetry.new_traceparent()
    assert ingest.span_at("beat", START, END, parent="", traceparent=own, attributes={"plugin": "p1"}) == own
    inside = ingest.span_at("detect", START, END, parent=own, error="too many", links=[PARENT, "damaged"])
    beat, detect = spans(ingest, exporter)
    assert beat.parent is None
    assert beat.start_time == 1772366400123456000
    assert beat.end_time - beat.start_time == 1_500_000_000
    assert beat.attributes == {"plugin": "p1"}
    assert detect.parent.span_id == beat.context.span_id
    assert detect.context.trace_id == beat.context.trace_id
    assert detect.status.description == "too many"
    assert [f"{link.context.trace_id:032x}" for link in detect.links] == [telemetry.trace_id(PARENT)]
    assert telemetry.trace_id(inside) == telemetry.trace_id(own)


def test_a_span_made_afterwards_takes_the_running_span_as_parent(exporter: InMemorySpanExporter) -> None:
    ingest = Telemetry("ingest", exporter=exporter)
    with ingest.use(), telemetry.current_telemetry().span("react"):
        telemetry.current_telemetry().span_at("verified healed", START, END)
    healed, react = spans(ingest, exporter)
    assert healed.parent.span_id == react.context.span_id


def test_an_agents_steps_are_its_own_and_the_same_when_reported_twice(exporter: InMemorySpanExporter) -> None:
    ingest = Telemetry("ingest", exporter=exporter)
    step = FinishedSpan("switch", START, END, PARENT, error="slot busy", attributes={"slot": "b"})
    ingest.export_foreign("agent", [step, FinishedSpan("lost", START, END, "")])
    ingest.export_foreign("agent", [step])
    first, again = spans(ingest, exporter)
    assert first.context.span_id == again.context.span_id
    assert first.resource.attributes["service.name"] == "agent"
    assert f"{first.context.trace_id:032x}" == telemetry.trace_id(PARENT)
    assert first.status.description == "slot busy"


async def test_two_services_in_one_process_keep_their_spans_apart() -> None:
    exporters = {name: InMemorySpanExporter() for name in ("ingest", "patcher")}
    services = {name: Telemetry(name, exporter=exporters[name]) for name in exporters}

    async def work(name: str) -> None:
        with services[name].use():
            for number in range(3):
                with telemetry.current_telemetry().span(f"{name} {number}"):
                    await asyncio.sleep(0)

    await asyncio.gather(*(work(name) for name in services))
    for name, made in services.items():
        assert [span.name for span in spans(made, exporters[name])] == [f"{name} {number}" for number in range(3)]


def test_lost_spans_never_block() -> None:
    lost = Telemetry("ingest", "http://127.0.0.1:9/v1/traces")
    began = time.monotonic()
    for _ in range(20_000):
        lost.span_at("beat", START, END)
    assert time.monotonic() - began < 60
    began = time.monotonic()
    lost.close()
    assert time.monotonic() - began < 30


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    telemetry.configure_logging("json")

    def lines() -> list[str]:
        return capsys.readouterr().err.splitlines()

    return lines


@pytest.fixture(autouse=True)
def logging_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_logs_are_json_with_service_and_trace_whoever_writes_them(written: Callable[[], list[str]]) -> None:
    with Telemetry("patcher").use(), telemetry.use_traceparent(PARENT):
        structlog.get_logger("ours").info("staged", attempt="a1")
        logging.getLogger("theirs").warning("slow %s", "query", extra={"rows": 3})
    ours, theirs = (json.loads(line) for line in written())
    assert (ours["event"], ours["attempt"], ours["level"]) == ("staged", "a1", "info")
    assert (theirs["event"], theirs["rows"], theirs["logger"]) == ("slow query", 3, "theirs")
    for line in (ours, theirs):
        assert line["service"] == "patcher"
        assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_secrets_and_long_texts_do_not_get_into_logs(written: Callable[[], list[str]]) -> None:
    log = structlog.get_logger("ours")
    log.info("enrolled", secret="s3cret", enrollment_token="t0ken", Authorization="Service x", detail="y" * 10_000)
    text = "".join(written())
    assert not any(word in text for word in ("s3cret", "t0ken", "Service x"))
    assert len(text) < 6000


def test_an_exception_is_one_line(written: Callable[[], list[str]]) -> None:
    try:
        raise OSError("disk full")
    except OSError:
        structlog.get_logger("ours").exception("cannot save")
    (line,) = written()
    assert "disk full" in json.loads(line)["exception"]


def test_configuring_again_neither_doubles_lines_nor_silences_others(
    written: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.configure_logging("json")
    logging.getLogger("theirs").warning("once")
    assert len(written()) == 1
    assert "once" in caplog.text


def test_a_metric_is_made_once() -> None:
    first = telemetry.counter("test_beats_total", "Beats heard", ("outcome",))
    assert telemetry.counter("test_beats_total", "Beats heard", ("outcome",)) is first
    with pytest.raises(TypeError):
        telemetry.gauge("test_beats_total", "Beats heard")


def test_whatever_labels_are_told_the_number_of_series_is_bounded() -> None:
    metric = telemetry.counter("test_words_total", "Words somebody else chose", ("word",))
    for number in range(SERIES + 500):
        metric.labels(f"word-{number}").inc()
    (found,) = metric.collect()
    counted = {sample.labels["word"]: sample.value for sample in found.samples if sample.name.endswith("_total")}
    assert len(counted) == SERIES + 1
    assert (counted["word-0"], counted[OTHER]) == (1, 500)


def test_labels_that_are_not_the_metrics_own_are_a_mistake() -> None:
    metric = telemetry.counter("test_pairs_total", "Pairs", ("one", "two"))
    with pytest.raises(ValueError, match="Incorrect label"):
        metric.labels("alone")
    assert telemetry.declared()["prunella_test_pairs_total"] == ("one", "two")
