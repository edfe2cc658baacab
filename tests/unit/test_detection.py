"""Windows, what beats add to them, and what is an anomaly."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest import detectors, windows
from services.ingest.anomaly.peers import Peers
from services.ingest.beat import Beat, ClientFigures, Health
from services.ingest.detectors import error_spike, plugin_down, telemetry_anomaly, webhook_fail_rate
from services.ingest.finding import Severity
from services.ingest.observation import UNCOUNTED, BeatOutcome, Observation, classify, observe
from services.ingest.plugin_state import PluginState
from services.ingest.windows import Window

NOW = 1_800_000_000.0


def window(end: float = NOW, **values: float) -> Window:
    plain = {
        "duration": 1.0,
        "errors": 0,
        "attempts": 0,
        "failures": 0,
        "signature_failures": 0,
        "beats": 1,
        "generation": 0,
    }
    return Window(end=end, **(plain | values))  # type: ignore[arg-type]


def seen(
    *found: Window, since: float = 0.0, health: Health = Health.HEALTHY, figures: ClientFigures = UNCOUNTED
) -> Observation:
    """What the detectors get when these are the plugin's windows."""
    packed = b"".join(windows.pack(one) for one in sorted(found, key=lambda one: one.end))
    state = PluginState("p", health=health, windows=packed, count_from_time=since, last_beat_time=NOW, open_types=2**20)
    newest = max(found, key=lambda one: one.end, default=window())
    return Observation(state, beat(1), "relay", NOW, newest, Peers(), figures, eventful=True, health_before=None)


def judged(*found: Window, **values: Any) -> dict[str, int]:
    observation = seen(*found, **values)
    detectors.detect(observation)
    return {finding.type: int(finding.severity) for finding in observation.findings}


def beat(sequence: int, boot: str = "b", **values: int) -> Beat:
    names = {"attempts": "webhook_attempts", "failures": "webhook_failures"}
    counted = {"errors": 0, "webhook_attempts": 0, "webhook_failures": 0, "signature_failures": 0, "generation": 0}
    counted |= {names.get(name, name): value for name, value in values.items()}
    return Beat(boot, sequence, release="1.2.0", digest="", health=Health.HEALTHY, **counted)  # type: ignore[arg-type]


def hear(state: PluginState, beat: Beat, at: float) -> Observation | tuple[BeatOutcome, str]:
    """A beat's whole way; why it was not applied if it was not."""
    outcome = classify(state, beat, at)
    if outcome[0] is not BeatOutcome.APPLIED:
        return outcome
    observation = observe(state, beat, at, package="relay", peers=Peers())
    detectors.detect(observation)
    return observation


def applied(state: PluginState, beat: Beat, at: float) -> Observation:
    observation = hear(state, beat, at)
    assert isinstance(observation, Observation)
    return observation


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
    assert judged(window(signature_failures=5)) == {}
    assert judged(window(signature_failures=6)) == {"signature_invalid": Severity.HIGH}


def test_figures_of_plain_clients_go_through_the_same_thresholds() -> None:
    assert judged(figures=ClientFigures(51, None)) == {"error_spike": Severity.HIGH}
    assert not judged(figures=ClientFigures(20, 0.3))


def plain(rate: float | None, *, generation: int = 0, time: float | None = None) -> Beat:
    """A beat of a client that has no boot and counts nothing."""
    figures = None if rate is None else ClientFigures(None, rate)
    return replace(beat(0, "", generation=generation), time=time, client_figures=figures)


def rates(*beats: Beat, state: PluginState | None = None) -> list[dict[str, int]]:
    """What each of these beats, ten seconds apart, shows."""
    state = state or PluginState("p")
    found = []
    for place, one in enumerate(beats):
        observation = applied(state, one, NOW + 10 * place)
        found.append({finding.type: int(finding.severity) for finding in observation.findings})
    return found


def test_one_bare_rate_is_no_evidence_and_three_in_a_row_are_as_bad_as_the_best_of_them() -> None:
    assert rates(plain(1.0), plain(1.0), plain(0.8)) == [{}, {}, {"webhook_fail_rate": Severity.HIGH}]
    assert rates(plain(1.0), plain(1.0), plain(0.3), plain(1.0)) == [{}, {}, {}, {}]


def test_a_bare_rate_that_is_sent_again_counts_once() -> None:
    first, other = plain(1.0, time=NOW), plain(1.0, time=NOW + 15)
    assert rates(first, first, first, first) == [{}, {}, {}, {}]
    assert rates(first, first, other, plain(1.0, time=NOW + 40))[-1] == {"webhook_fail_rate": Severity.CRITICAL}


def test_bare_rates_of_another_generation_do_not_count() -> None:
    assert rates(plain(1.0), plain(1.0), plain(1.0, generation=1)) == [{}, {}, {}]


def test_attempts_beside_a_rate_count_at_once() -> None:
    counted = window(attempts=20, failures=18)
    assert judged(counted, figures=ClientFigures(None, 1.0)) == {"webhook_fail_rate": Severity.HIGH}


def rate_well(*newest_first: Window) -> bool | None:
    placed = [one._replace(end=NOW - place) for place, one in enumerate(newest_first)]
    return webhook_fail_rate.DETECTOR.well(seen(*placed))


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


@pytest.mark.parametrize(
    ("duration", "wellness"),
    [(0.39, {"telemetry_anomaly": True}), (0.4, {"error_spike": True, "telemetry_anomaly": True})],
)
def test_a_burst_speaks_of_the_past_and_proves_nobody_well(
    duration: float, wellness: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the baseline says is tested in test_anomaly; here it was evaluated, and finds the plugin like itself again.
    baseline = replace(telemetry_anomaly.DETECTOR, due=lambda _seen: True, judge=lambda _seen: None)
    monkeypatch.setattr(detectors, "DETECTORS", (error_spike.DETECTOR, baseline))
    observation = seen(window(duration=duration))
    observation.state.open_types = detectors.bits(["error_spike", "telemetry_anomaly"])
    observation.state.like_itself = True
    detectors.detect(observation)
    assert observation.wellness == wellness


def test_an_error_in_a_burst_speaks_against_being_healed() -> None:
    observation = seen(window(duration=0.0, errors=1))
    observation.state.open_types = detectors.bits(["error_spike"])
    detectors.detect(observation)
    assert observation.wellness == {"error_spike": False}


def test_a_plugin_that_starts_is_neither_down_nor_well() -> None:
    looks = [seen(window(), health=health) for health in Health]
    down = [plugin_down.DETECTOR.judge(look) is not None for look in looks]
    assert down == [health is Health.DOWN for health in Health]
    assert [plugin_down.DETECTOR.well(look) for look in looks] == [True, True, None, None, None]


@given(st.integers(1, 10_000), st.data())
def test_what_attempts_support_is_never_more_than_what_was_seen(attempts: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, attempts))
    assert -1e-9 <= webhook_fail_rate.supported(failures, attempts) <= failures / attempts + 1e-9


def test_types_fit_in_a_number() -> None:
    assert [detector.bit for detector in detectors.DETECTORS] == [1 << place for place in range(10)]
    assert len(detectors.BITS) == len(detectors.DETECTORS)
    assert detectors.bits(["webhook_fail_rate", "config_drift", "webhook_fail_rate"]) == 4 + 32


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
    assert len(kept) <= windows.MOST_WINDOWS
    assert [w[2:] for w in kept[-windows.UNFOLDED :]] == [w[2:] for w in given_[-windows.UNFOLDED :]]
    beats = windows.total(kept).beats
    assert windows.total(kept)[:4] == windows.total(given_[len(given_) - beats :])[:4]
    assert list(windows.newest_first(packed)) == kept[::-1]


def test_a_healthy_day_fits_in_a_small_row() -> None:
    packed = b""
    for number in range(2880):
        packed = windows.append(packed, window(NOW + 30 * number, duration=30, attempts=5))
    assert len(packed) <= windows.MOST_WINDOWS * windows.SIZE
    assert windows.total(windows.read(packed)).beats >= 800


def test_counters_are_differences_and_a_repeated_beat_changes_nothing() -> None:
    state = PluginState("p")
    hear(state, beat(1, errors=3, attempts=10), NOW)
    counted = applied(state, beat(2, errors=5, attempts=25), NOW + 1)
    assert (counted.window.errors, counted.window.attempts) == (2, 15)
    before = copy.copy(state)
    assert hear(state, beat(2, errors=9), NOW + 2) == (BeatOutcome.REPEATED, "")
    assert state == before


@given(st.permutations([1, 2, 3, 4, 5]), st.lists(st.integers(1, 5), max_size=5))
def test_merged_repeated_and_reordered_beats_neither_lose_nor_double(order: list[int], repeats: list[int]) -> None:
    state = PluginState("p")
    for place, number in enumerate([*order, *repeats, 5]):
        hear(state, beat(number, errors=number * 7), NOW + place)
    assert windows.total(windows.read(state.windows)).errors == 35


def test_counters_start_anew_with_a_boot_but_do_not_shrink_within_one() -> None:
    state = PluginState("p")
    hear(state, beat(9, errors=50), NOW)
    assert hear(state, beat(10, errors=49), NOW + 1) == (BeatOutcome.SHRUNK, "errors")
    counted = applied(state, beat(1, "c", errors=4), NOW + 2)
    assert counted.window.errors == 4


def test_a_beat_of_the_boot_before_may_have_been_on_its_way_and_changes_no_figure() -> None:
    state = PluginState("p")
    for boot in ("a", "b"):
        assert applied(state, beat(1, boot), NOW)
    before = copy.copy(state)
    assert hear(state, beat(2, "a"), NOW) == (BeatOutcome.LATE, "")
    assert replace(state, former_sequences=before.former_sequences) == before


def test_two_boots_that_alternate_and_advance_are_two_agents() -> None:
    state, at, outcomes = PluginState("p"), NOW, []
    for sequence in range(1, 5):
        for boot in ("a", "b"):
            outcomes.append(classify(state, beat(sequence, boot), at)[0])
            at += 90
    assert outcomes[:4] == [BeatOutcome.APPLIED] * 4
    assert BeatOutcome.CLONED in outcomes


def test_a_difference_to_what_another_boot_counted_is_none() -> None:
    state = PluginState("p")
    applied(state, beat(1, "a", errors=100), NOW)
    applied(state, beat(1, "b", errors=3), NOW + 100)
    back = applied(state, beat(2, "a", errors=140), NOW + 200)
    assert back.window.errors == 0
    assert applied(state, beat(3, "a", errors=141), NOW + 201).window.errors == 1


def test_a_beat_without_a_boot_is_no_rival_of_an_agent_that_streams() -> None:
    state = PluginState("p")
    applied(state, beat(1, "a", errors=7), NOW)
    for place in range(1, 9):
        applied(state, plain(0.0), NOW + 20 * place)
        later = applied(state, beat(1 + place, "a", errors=7), NOW + 20 * place + 10)
        assert later.window.errors == 0
    assert state.boot_ids == ("a",)


def test_a_clock_that_was_set_back_hides_nothing() -> None:
    state = PluginState("p")
    applied(state, beat(1, attempts=0), NOW)
    applied(state, beat(2, attempts=20, failures=20), NOW - 5000)
    assert state.last_beat_time == NOW - 5000
    found = applied(state, beat(3, attempts=40, failures=40), NOW - 4990)
    assert "webhook_fail_rate" in {finding.type for finding in found.findings}


def test_the_agents_own_clock_is_only_shown() -> None:
    state = PluginState("p")
    applied(state, replace(beat(1), time=10.0), NOW)
    assert (state.last_beat_time, state.clock_skew) == (NOW, 10.0 - NOW)


def test_a_difference_belongs_to_the_generation_that_ran_when_it_began() -> None:
    state = PluginState("p")
    hear(state, beat(1, attempts=10), NOW)
    hear(state, beat(2, attempts=20, failures=10, generation=1), NOW + 1)
    hear(state, beat(3, attempts=30, failures=10, generation=1), NOW + 2)
    assert [(one.generation, one.failures) for one in windows.read(state.windows)] == [(0, 0), (0, 10), (1, 0)]


def test_errors_of_a_plain_client_count_from_the_last_change() -> None:
    state = PluginState("p", errors_last_24h=60, errors_last_24h_base=60)
    reported = beat(1)
    reported.client_figures = ClientFigures(75)
    assert not applied(state, reported, NOW).findings
    reported = beat(2)
    reported.client_figures = ClientFigures(95)
    assert [finding.type for finding in applied(state, reported, NOW + 1).findings] == ["error_spike"]


def test_a_failure_is_still_judged_when_the_beats_after_it_are_quiet() -> None:
    state = PluginState("p", quiet_windows=99)
    hear(state, beat(1, attempts=5, failures=5), NOW)
    counted = applied(state, beat(2, attempts=10, failures=5), NOW + 1)
    assert [finding.type for finding in counted.findings] == ["webhook_fail_rate"]
