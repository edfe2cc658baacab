"""What comes and goes is told in sum; only how it ended may be a question."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.ops.notify.summaries import KIND, QUESTION, Repeats, summary
from services.ops.severity import Severity

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
FOUND = Repeats(
    key="incident:p:plugin_down", times=4, told_time=NOW, last_time=NOW + timedelta(minutes=40), last_event="e9",
    incident="i1", plugin="p", merchant="m", label="shop-7", type="plugin_down", severity=Severity.CRITICAL,
    ended=False, settled=False,
)  # fmt: skip


def test_while_it_goes_on_it_is_counted_and_asks_nobody() -> None:
    found = summary(FOUND)
    assert (found.fact, found.severity) == (KIND, Severity.HIGH), "a repeat is never urgent"
    assert found.headline.startswith("shop-7: plugin_down came back 4 times in 40")
    assert found.headline.endswith("and it goes on")
    assert (found.event, found.time, found.key) == ("e9", FOUND.last_time, FOUND.key)
    assert (found.plugin, found.merchant, found.incident) == ("p", "m", "i1")
    assert found.command == "prunella stories show i1"


@pytest.mark.parametrize("settled", [True, False])
def test_what_has_ended_is_said_and_asks_nobody(settled: bool) -> None:
    found = summary(replace(FOUND, ended=True, settled=settled))
    assert (found.fact, found.severity) == (KIND, Severity.HIGH)
    assert found.headline.endswith("and it has ended")


def test_what_came_back_and_stays_is_told_like_the_first_time() -> None:
    found = summary(replace(FOUND, settled=True))
    assert (found.fact, found.severity) == (QUESTION, Severity.CRITICAL)
    assert found.headline.endswith("and it has not ended since")


@pytest.mark.parametrize("severity", [Severity.LOW, Severity.MEDIUM, Severity.HIGH])
def test_what_is_mild_stays_mild(severity: Severity) -> None:
    assert summary(replace(FOUND, severity=severity)).severity is severity
    assert summary(replace(FOUND, severity=severity, settled=True)).severity is severity


def test_a_clock_that_went_back_makes_no_negative_span() -> None:
    found = summary(replace(FOUND, last_time=NOW - timedelta(minutes=5), type=""))
    assert "came back 4 times in 0" in found.headline
    assert "an incident" in found.headline
