"""The report is one file that loads nothing, escapes everything, and says "no data" where there is none."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from cli import kpi_format, report, svg_charts
from cli.svg_charts import Series
from prunella.v1 import kpis_pb2 as pb
from prunella.v1.overview_pb2 import GetOverviewResponse
from prunella.v1.stories_pb2 import Story

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def kpis() -> pb.GetKpisResponse:
    """An empty window of one day."""
    answer = pb.GetKpisResponse(point_seconds=3600)
    answer.start_time.FromDatetime(NOW - timedelta(days=1))
    answer.end_time.FromDatetime(NOW)
    for ratio, target, exceed in ((answer.success, 0.95, True), (answer.rollback, 0.02, False)):
        ratio.target, ratio.exceed = target, exceed
    answer.time_to_repair.target_seconds = 600
    return answer


def full() -> pb.GetKpisResponse:
    answer = kpis()
    answer.success.numerator, answer.success.denominator = 48, 50
    answer.success.value, answer.success.met = 0.96, True
    answer.time_to_repair.cases, answer.time_to_repair.mean_seconds, answer.time_to_repair.met = 48, 12.5, True
    answer.time_to_repair.p50_seconds, answer.time_to_repair.p95_seconds = 10.0, 30.0
    point = answer.points.add(opened=3, mitigated=2, succeeded=2, rolled_back=1, mean_repair_seconds=12.5)
    point.time.FromDatetime(NOW - timedelta(hours=5))
    answer.calibration.add(lower=0.8, upper=0.9, decisions=3, predicted=0.87, tried=3, observed=0.67)
    return answer


def page(answer: pb.GetKpisResponse, *stories: Story) -> str:
    return report.page(answer, stories, GetOverviewResponse(), NOW)


def test_an_empty_window_says_no_data_and_draws_nothing() -> None:
    text = page(kpis())
    assert "<svg" not in text
    assert text.count("no data") >= 9
    assert "NaN" not in text and "nan" not in re.findall(r">([^<]*)<", text)


def test_a_full_window_shows_figures_targets_and_charts() -> None:
    text = page(full())
    assert "96.0 %  (48 of 50)" in text
    assert '<td class="reached">&gt; 95.0 % reached</td>' in text
    assert "12 s  (p50 10 s, p95 30 s, 48 of them)" in text
    assert text.count("<svg") == 5


def test_nothing_is_loaded_from_anywhere() -> None:
    text = page(full(), Story(label="shop-7", outcome="healed"))
    assert not re.search(r"(src|href|url\(|@import|<script|<link|https?:)", text)


def test_what_plugins_say_cannot_become_markup() -> None:
    evil = Story(label="<script>alert(1)</script>", evidence="<img src=x>", outcome="a & b")
    text = page(full(), evil)
    assert "<script" not in text and "<img" not in text
    assert "a &amp; b" in text


@pytest.mark.parametrize(
    "drawn",
    [
        svg_charts.bars(["a", "b"], [Series("x & y", "#123456", [1.0, None])]),
        svg_charts.line(["a", "b", "c"], Series("x", "#123456", [1.0, None, 3.0]), unit=" s", target=2.0),
        svg_charts.calibration([(0.87, 0.67, 3), (0.5, 0.5, 1)]),
    ],
    ids=["bars", "line", "calibration"],
)
def test_charts_are_well_formed(drawn: str) -> None:
    ET.fromstring(f"<div>{drawn}</div>")  # noqa: S314 - our own text


def test_a_line_breaks_where_there_is_no_data() -> None:
    drawn = svg_charts.line(["a", "b", "c"], Series("x", "#123456", [1.0, None, 3.0]))
    (path,) = re.findall(r'd="([^"]*)"', drawn)
    assert path.count("M") == 2


def test_a_figure_without_a_case_is_no_data_and_has_a_target_all_the_same() -> None:
    rows = {name: (value, goal) for name, value, goal in kpi_format.rows(kpis())}
    assert rows["autopatch success"] == ("no data", "> 95.0 %")
    assert rows["time to repair"] == ("no data", "< 10 min")
    assert rows["calibration error"][0] == rows["fleet"][0] == rows["uptime"][0] == "no data"
