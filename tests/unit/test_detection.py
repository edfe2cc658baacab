"""Windows, what beats add to them, and what is an anomaly."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest import detection, telemetry, windows
from services.ingest.detection import Health, Plain, Severity
from services.ingest.telemetry import Beat, Hearing, Pulse
from services.ingest.windows import Window

NOW = 1_800_000_000.0


def window(end: float = NOW, **values: float) -> Window:
    plain = {"duration": 1.0, "errors": 0, "attempts": 0, "failures": 0, "signatures": 0, "beats": 1, "generation": 0}
    return Window(end=end, **(plain | values))  # type: ignore[arg-type]


def judged(
    *found: Window, since: float = 0.0, health: Health = Health.HEALTHY, plain: Plain | None = None
) -> dict[str, int]:
    newest_first = sorted(found, key=lambda one: one.end, reverse=True)
    anomalies = detection.judge(newest_first, since, NOW, health, plain or Plain())
    return {anomaly.type: int(anomaly.severity) for anomaly in anomalies}


def beat(sequence: int, boot: str = "b", **values: int) -> Beat:
    counted = {"errors": 0, "attempts": 0, "failures": 0, "signatures": 0, "generation": 0} | values
    return Beat(boot, sequence, release="1.2.0", digest="", health=Health.HEALTHY, **counted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attempts", "failures", "severity"),
    [
        (25, 15, Severity.MEDIUM),  # the worked example: 0.6
        (100, 80, Severity.HIGH),
        (100, 100, Severity.CRITICAL),
        (10, 10, Severity.CRITICAL),
        (10, 4, Severity.MEDIUM),
    ],
)
def test_a_fail_rate_has_a_severity(attempts: int, failures: int, severity: Severity) -> None:
    assert judged(window(attempts=attempts, failures=failures)) == {"webhook_fail_rate": severity}


@pytest.mark.parametrize(("attempts", "failures"), [(9, 9), (10, 3), (100, 30), (0, 0)])
def test_a_low_rate_or_too_few_attempts_say_nothing(attempts: int, failures: int) -> None:
    assert not judged(window(attempts=attempts, failures=failures))


def test_a_few_unlucky_calls_are_not_called_worse_than_they_support() -> None:
    assert judged(window(attempts=10, failures=8)) == {"webhook_fail_rate": Severity.MEDIUM}


def test_the_rate_is_that_of_the_newest_windows_with_enough_attempts() -> None:
    good = [window(NOW - 10 + place, attempts=1000) for place in range(9)]
    assert judged(*good, window(attempts=6, failures=6)) == {}
    assert judged(*good, window(NOW - 0.5, attempts=6, failures=6), window(attempts=6, failures=6)) == {
        "webhook_fail_rate": Severity.CRITICAL
    }


def test_windows_before_the_last_change_do_not_count() -> None:
    assert not judged(window(NOW, duration=5, attempts=50, failures=50), since=NOW - 4)
    assert judged(window(NOW, duration=3, attempts=50, failures=50), since=NOW - 4)


@pytest.mark.parametrize(("errors", "severity"), [(20, None), (21, 2), (51, 3), (101, 4)])
def test_errors_add_up_over_the_day(errors: int, severity: int | None) -> None:
    spread = [window(NOW - 3600 * hour, duration=10, errors=errors // 2 + (errors % 2) * hour) for hour in (0, 1)]
    assert judged(*spread).get("error_spike") == severity
    assert not judged(window(NOW - 90_000, errors=500))


def test_a_plugin_whose_supervisor_alone_lives_is_down() -> None:
    assert judged(health=Health.DOWN) == {"plugin_down": Severity.HIGH}


def test_rejected_signatures_are_an_anomaly_of_their_own() -> None:
    assert judged(window(signatures=5)) == {}
    assert judged(window(signatures=6)) == {"signature_invalid": Severity.HIGH}


def test_figures_of_plain_clients_go_through_the_same_thresholds() -> None:
    assert judged(plain=Plain(errors=51, rate=0.6)) == {
        "webhook_fail_rate": Severity.MEDIUM,
        "error_spike": Severity.HIGH,
    }
    assert not judged(plain=Plain(errors=20, rate=0.3))


def rate_well(*windows: Window) -> bool | None:
    return detection.well("webhook_fail_rate", windows, Health.HEALTHY, Plain())


def test_a_window_without_attempts_says_nothing_about_a_rate() -> None:
    assert rate_well(window()) is None
    assert rate_well(window(), window(attempts=20)) is None
    assert rate_well(window(attempts=10, failures=1)) is True
    assert rate_well(window(attempts=10, failures=9)) is False


def test_a_few_webhooks_that_worked_prove_no_more_than_a_few_that_did_not() -> None:
    few, spoilt = window(attempts=2), window(attempts=9, failures=9)
    assert rate_well(few, few, few, few) is None
    assert rate_well(few, few, few, few, few) is True
    assert rate_well(few, spoilt) is False
    assert rate_well(few, few, few, few, few, spoilt) is True


def test_what_another_build_did_counts_neither_way() -> None:
    spoilt = window(NOW - 1, attempts=20, failures=20, generation=1)
    assert judged(spoilt) == {"webhook_fail_rate": Severity.CRITICAL}
    assert judged(spoilt, window(attempts=5, failures=3)) == {}
    assert judged(spoilt, window(attempts=10, failures=6)) == {"webhook_fail_rate": Severity.MEDIUM}


def test_a_plugin_that_starts_is_neither_down_nor_well() -> None:
    verdicts = [detection.well("plugin_down", [window()], health, Plain()) for health in Health]
    assert verdicts == [True, True, None, False, None]


@given(st.integers(1, 10_000), st.data())
def test_what_attempts_support_is_never_more_than_what_was_seen(attempts: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, attempts))
    assert -1e-9 <= detection.supported(failures, attempts) <= failures / attempts + 1e-9


@given(st.integers(0, 31))
def test_types_fit_in_a_number(number: int) -> None:
    assert detection.bits(detection.types(number)) == number


counts = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 3), st.floats(0.1, 4000))


@given(st.lists(counts, max_size=200))
def test_folding_loses_no_count_and_keeps_the_newest_as_they_came(
    steps: list[tuple[int, int, int, int, float]],
) -> None:
    packed, given_, end = b"", [], NOW
    for errors, attempts, failures, generation, duration in steps:
        end += duration
        one = window(end, duration=duration, errors=errors, attempts=attempts, failures=failures, generation=generation)
        packed = windows.append(packed, one)
        given_.append(one)
    kept = windows.read(packed)
    assert len(kept) <= windows.KEPT
    assert [w[2:] for w in kept[-windows.PLAIN :]] == [w[2:] for w in given_[-windows.PLAIN :]]
    beats = windows.total(kept).beats
    assert windows.total(kept)[:4] == windows.total(given_[len(given_) - beats :])[:4]
    assert list(windows.newest_first(packed)) == kept[::-1]


def test_a_healthy_day_fits_in_a_small_row() -> None:
    packed = b""
    for number in range(2880):
        packed = windows.append(packed, window(NOW + 30 * number, duration=30, attempts=5))
    assert len(packed) <= windows.KEPT * windows.SIZE
    assert windows.total(windows.read(packed)).beats >= 800


def test_counters_are_differences_and_a_repeated_beat_changes_nothing() -> None:
    pulse = Pulse("p")
    telemetry.hear(pulse, beat(1, errors=3, attempts=10), NOW)
    heard = telemetry.hear(pulse, beat(2, errors=5, attempts=25), NOW + 1)
    assert heard.window is not None
    assert (heard.window.errors, heard.window.attempts) == (2, 15)
    before = copy.copy(pulse)
    assert telemetry.hear(pulse, beat(2, errors=9), NOW + 2).hearing is Hearing.REPEATED
    assert pulse == before


@given(st.permutations([1, 2, 3, 4, 5]), st.lists(st.integers(1, 5), max_size=5))
def test_merged_repeated_and_reordered_beats_neither_lose_nor_double(order: list[int], repeats: list[int]) -> None:
    pulse = Pulse("p")
    for place, number in enumerate([*order, *repeats, 5]):
        telemetry.hear(pulse, beat(number, errors=number * 7), NOW + place)
    assert windows.total(windows.read(pulse.windows)).errors == 35


def test_counters_start_anew_with_a_boot_but_do_not_shrink_within_one() -> None:
    pulse = Pulse("p")
    telemetry.hear(pulse, beat(9, errors=50), NOW)
    shrunk = telemetry.hear(pulse, beat(10, errors=49), NOW + 1)
    assert (shrunk.hearing, shrunk.wrong) == (Hearing.SHRUNK, "errors")
    heard = telemetry.hear(pulse, beat(1, "c", errors=4), NOW + 2)
    assert heard.window is not None
    assert heard.window.errors == 4


def test_a_boot_that_comes_back_means_two_agents() -> None:
    pulse = Pulse("p")
    for boot in ("a", "b"):
        assert telemetry.hear(pulse, beat(1, boot), NOW).hearing is Hearing.APPLIED
    before = copy.copy(pulse)
    assert telemetry.hear(pulse, beat(2, "a"), NOW).hearing is Hearing.CLONED
    assert pulse == before


def test_a_difference_belongs_to_the_generation_that_ran_when_it_began() -> None:
    pulse = Pulse("p")
    telemetry.hear(pulse, beat(1, attempts=10), NOW)
    telemetry.hear(pulse, beat(2, attempts=20, failures=10, generation=1), NOW + 1)
    telemetry.hear(pulse, beat(3, attempts=30, failures=10, generation=1), NOW + 2)
    assert [(one.generation, one.failures) for one in windows.read(pulse.windows)] == [(0, 0), (0, 10), (1, 0)]


def test_errors_of_a_plain_client_count_from_the_last_change() -> None:
    pulse = Pulse("p", plain_last=60, plain_errors=60)
    said = beat(1)
    said.plain = Plain(errors=75)
    assert not telemetry.hear(pulse, said, NOW).anomalies
    said = beat(2)
    said.plain = Plain(errors=95)
    assert [anomaly.type for anomaly in telemetry.hear(pulse, said, NOW + 1).anomalies] == ["error_spike"]


def test_a_failure_is_still_judged_when_the_beats_after_it_are_quiet() -> None:
    pulse = Pulse("p", calm=99)
    telemetry.hear(pulse, beat(1, attempts=5, failures=5), NOW)
    heard = telemetry.hear(pulse, beat(2, attempts=10, failures=5), NOW + 1)
    assert [anomaly.type for anomaly in heard.anomalies] == ["webhook_fail_rate"]
