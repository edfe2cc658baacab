"""Every detector has its figure in a verdict."""

from __future__ import annotations

from dataclasses import fields

import pytest

from services.ingest.detectors import DETECTORS
from services.patcher.evidence import BY_FINDING, FIGURES, Kind, Rules, Sums
from services.patcher.verdict import TESTS


def test_whatever_opens_an_incident_can_speak_against_a_remedy() -> None:
    assert set(FIGURES) == {detector.type for detector in DETECTORS}


def test_what_is_tested_names_a_counter_and_nothing_else_does() -> None:
    counters = {field.name for field in fields(Sums)}
    for type_, figure in FIGURES.items():
        tested = figure.kind in {Kind.SHARE, Kind.COUNT}
        assert bool(figure.events) is tested, type_
        assert not tested or figure.events in counters


def test_the_tests_share_alpha() -> None:
    assert sum(figure.kind in {Kind.SHARE, Kind.COUNT} for figure in FIGURES.values()) == TESTS == 3


def test_what_has_a_test_or_is_read_off_the_plugin_is_not_found_a_second_time() -> None:
    assert {Kind.FINDING, Kind.LEVEL} == BY_FINDING


def test_rates_of_nothing_are_none_and_a_beat_lasts_at_least_a_second() -> None:
    assert (Sums().rate, Sums().errors_per_minute, Sums().lasted) == (0.0, 0.0, 0.0)
    seen = Sums(beats=30, errors=6, attempts=8, failures=2, seconds=12.0)
    assert (seen.rate, seen.lasted, seen.errors_per_minute) == (0.25, 30.0, 12.0)
    assert Sums(beats=2, errors=6, seconds=120.0).errors_per_minute == 3.0


@pytest.mark.parametrize(("threshold", "ceiling"), [(0.1, 0.3), (0.2, 0.6), (0.25, 0.625), (0.0, 0.0), (1.0, 1.0)])
def test_the_ceiling_is_three_times_the_threshold_or_half_way_to_all(threshold: float, ceiling: float) -> None:
    assert Rules(threshold=threshold).ceiling == pytest.approx(ceiling)
