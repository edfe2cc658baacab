"""telemetry_anomaly: how often it is wrong on healthy fleets, how soon it is right, and what single windows can do."""

import math
import sys
import time
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.anomaly import scoring
from services.ingest.anomaly.scoring import (
    ALONE,
    ERROR_RATE,
    FAIL_RATE,
    RULES,
    Baseline,
    Change,
    Evaluation,
    Figure,
    Reading,
    Reference,
    accept,
    evaluate,
    pack,
    readings,
    reference,
    reset_scores,
    unpack,
)
from services.ingest.windows import Window
from tests.unit.healthy_fleets import DAY, LATENCY, Fleet, fleet

MINUTE = 60.0
USUAL = Reading(math.log(100.0))
PEERS = Reference(20, 1.0, math.log(100.0), 0.3)


def say(figures: str) -> None:
    sys.stdout.write(f"\n{figures}\n")


def evaluated(
    baseline: Baseline, reading: Reading, times: int, peers: Reference = PEERS, seconds: float = 30.0
) -> Evaluation:
    evaluation = Evaluation(baseline, Change.NONE)
    for _ in range(times):
        evaluation = evaluate(evaluation.baseline, {LATENCY: reading}, seconds, {LATENCY: peers})
        if evaluation.change is not Change.NONE:
            return evaluation
    return evaluation


def warmed() -> Baseline:
    return evaluated(Baseline(), USUAL, 240).baseline


def slower(times: float) -> Reading:
    return Reading(math.log(100.0 * times))


class TestAHealthyMonth:
    """Days and nights, plugins from across the globe, bursts, restarts, newcomers, and a common outage a week."""

    def month(self, size: int, seed: int, *, alone: bool) -> tuple[Fleet, int, float]:
        simulated, alarms, begun = fleet(seed, size, 120.0), 0, time.process_time()
        for _ in range(30 * 720):
            sixth = simulated.at % (7 * DAY) - 6 * DAY
            common = 3.0 if not alone and 0 <= sixth < 20 * MINUTE else 1.0
            if simulated.at % (7 * DAY) == 3 * DAY:
                simulated.members[int(simulated.at // DAY) % size].baseline = Baseline()
            alarms += sum(word is Change.OPEN for _, word, _ in simulated.step(common, alone=alone))
        return simulated, alarms, time.process_time() - begun

    def test_plugins_with_peers_raise_no_false_alarm(self) -> None:
        simulated, alarms, seconds = self.month(10, 11, alone=False)
        say(f"10 plugins with peers, 30 days, {simulated.windows} windows: {alarms} false alarms, {seconds:.1f} s CPU")
        assert simulated.windows == 10 * 30 * 720
        assert alarms == 0

    def test_plugins_without_peers_raise_none_either(self) -> None:
        simulated, alarms, seconds = self.month(5, 12, alone=True)
        say(f"5 plugins alone, 30 days, {simulated.windows} windows: {alarms} false alarms, {seconds:.1f} s CPU")
        assert alarms == 0


# Minutes until half of the broken plugins are found. Counts are found after so many events, whatever the time: these
# plugins fail on 0.2 to 3 % of 10 to 30 calls a minute, and make an error every few minutes to hours.
DELAYS = [
    (LATENCY, 2.0, 12.0),
    (LATENCY, 5.0, 3.0),
    (FAIL_RATE, 2.0, 360.0),
    (FAIL_RATE, 5.0, 30.0),
    (ERROR_RATE, 5.0, 240.0),
]


class TestAShift:
    """Four of twenty plugins get worse and stay so; the other sixteen say nothing."""

    @pytest.mark.parametrize(("figure", "times", "within"), DELAYS)
    def test_is_found_in_time_and_only_where_it_is(self, figure: str, times: float, within: float) -> None:
        simulated = fleet(5, 20, 30.0)
        for _ in range(2 * 1440):
            assert not simulated.step()
        begun, broken = simulated.at, set(range(0, 20, 5))
        for number in broken:
            simulated.members[number].worse = {figure: times}
        found: dict[int, float] = {}
        while simulated.at < begun + 2 * within * MINUTE and len(found) < len(broken):
            for number, word, name in simulated.step():
                assert number in broken
                if word is Change.OPEN:
                    assert name == figure
                    found.setdefault(number, (simulated.at - begun) / MINUTE)
        delays = sorted(found.values()) + [math.inf] * (len(broken) - len(found))
        say(f"{figure} x{times:.0f}: found after {', '.join(f'{each:.1f}' for each in delays)} minutes")
        assert median(delays) <= within


class TestAWindow:
    """What single windows can and cannot do."""

    def test_a_shift_opens_once_keeps_and_closes_when_it_is_over(self) -> None:
        opened = evaluated(warmed(), slower(5), 10)
        assert (opened.change, opened.figure, round(opened.present)) == (Change.OPEN, LATENCY, 500)
        assert opened.usual == pytest.approx(100, rel=0.02)
        assert opened.reason.startswith("latency_ms stays above what is usual for this plugin: 500 now, 10")
        lasting = evaluated(opened.baseline, slower(5), 5000)
        assert (lasting.change, lasting.baseline.open) == (Change.NONE, True)
        assert evaluated(lasting.baseline, USUAL, 10).change is Change.CLOSE

    @pytest.mark.parametrize("seconds", [30.0, 120.0, 600.0])
    def test_three_bad_windows_are_never_enough_however_bad_and_long(self, seconds: float) -> None:
        for reading in (slower(1e9), slower(6)):
            assert evaluated(warmed(), reading, 3, seconds=seconds).change is Change.NONE
            assert evaluated(warmed(), reading, 4, seconds=seconds).change is Change.OPEN

    def test_many_windows_of_a_second_weigh_no_more_than_their_time(self) -> None:
        assert evaluated(warmed(), slower(50), 119, seconds=1.0).change is Change.NONE
        assert evaluated(warmed(), slower(50), 122, seconds=1.0).change is Change.OPEN

    def test_getting_better_is_no_anomaly(self) -> None:
        assert evaluated(warmed(), slower(0.01), 1000).change is Change.NONE

    def test_what_befalls_all_peers_excuses_and_what_they_are_spared_does_not_accuse(self) -> None:
        everybody = PEERS._replace(factor=5.0)
        assert evaluated(warmed(), slower(5), 100, everybody).change is Change.NONE
        assert evaluated(warmed(), slower(25), 100, everybody).change is Change.OPEN

    def test_nothing_opens_before_an_hour_was_measured_unless_peers_know_what_is_usual(self) -> None:
        assert evaluated(Baseline(), slower(5), 119, ALONE).change is Change.NONE
        assert evaluated(Baseline(), slower(50), 20, PEERS).change is Change.OPEN
        assert evaluated(Baseline(), slower(3), 119, PEERS).change is Change.NONE

    def test_a_shift_is_not_learned_while_it_is_suspicious_but_when_a_person_accepts_it(self) -> None:
        opened = evaluated(warmed(), slower(3), 100)
        assert opened.change is Change.OPEN
        later = evaluated(opened.baseline, slower(3), 5000).baseline
        assert math.exp(later.figures[LATENCY].amount / later.figures[LATENCY].base) < 110
        anew = accept(later)
        assert not anew.open
        assert evaluated(anew, slower(3), 5000, ALONE).change is Change.NONE

    def test_after_an_apply_the_evidence_is_gone_and_the_usual_stays(self) -> None:
        opened = evaluated(warmed(), slower(3), 100).baseline
        fresh = reset_scores(opened)
        assert (fresh.open, fresh.figures[LATENCY].score) == (False, 0.0)
        assert evaluated(fresh, slower(3), 100).change is Change.OPEN

    def test_the_first_window_of_a_boot_counts_for_nothing(self) -> None:
        before = warmed()
        assert evaluate(before, {LATENCY: slower(9)}, 0.0, {}) == Evaluation(before, Change.NONE)

    def test_hardly_ever_failing_is_not_called_never_failing(self) -> None:
        baseline = Baseline()
        for _ in range(500):
            baseline = evaluate(baseline, {FAIL_RATE: Reading(0, 20)}, 30.0, {FAIL_RATE: Reference(9)}).baseline
        one = evaluate(baseline, {FAIL_RATE: Reading(2, 20)}, 30.0, {FAIL_RATE: Reference(9)})
        assert one.change is Change.NONE
        evaluation, windows = one, 1
        while evaluation.change is Change.NONE:
            evaluation = evaluate(evaluation.baseline, {FAIL_RATE: Reading(2, 20)}, 30.0, {FAIL_RATE: Reference(9)})
            windows += 1
        assert 10 <= windows <= 30


def test_the_figures_of_a_window_are_named_and_bounded() -> None:
    window = Window(0.0, 30.0, 3, 20, 2, 0, 1, 1)
    numbers = [("latency_ms", 120.0), ("queue", 5.0), ("a_seconds", 0.0), ("b_ms", math.nan), ("c_ms", -1.0)]
    assert readings(window, numbers) == {
        ERROR_RATE: Reading(3, 20.5),
        FAIL_RATE: Reading(2, 20),
        "latency_ms": Reading(math.log(120.0)),
    }
    assert FAIL_RATE not in readings(window._replace(attempts=0, failures=0))
    many = readings(window, [(f"n{number:02}_ms", 1.0) for number in range(32)])
    assert len(many) == 2 + scoring.MOST_LEVELS


def test_peers_are_a_median_that_a_few_sick_ones_do_not_move() -> None:
    well = [(Figure(600.0 * value, 600.0, 0.0, 0.0, 7200.0), Reading(value)) for value in (4.0, 4.5, 5.0, 5.5, 6.0) * 2]
    sick = [(Figure(3000.0, 600.0, 0.0, 0.0, 7200.0), Reading(9.0))] * 4
    found = reference(well + sick)
    assert (found.peers, found.factor) == (14, 1.0)
    assert found.centre == pytest.approx(5.0)
    assert reference(well[:7]) == ALONE
    assert reference([(figure._replace(seconds=60.0), reading) for figure, reading in well]) == ALONE
    all_slower = [(figure, Reading(reading.value + math.log(3.0))) for figure, reading in well]
    assert reference(all_slower).factor == pytest.approx(3.0)


def test_a_few_peers_in_trouble_excuse_nobody_and_all_of_them_do() -> None:
    usual = Figure(20.0, 1000.0, 1.0, 0.0, 7200.0)
    few = [(usual, Reading(2, 100))] * 17 + [(usual, Reading(90, 100))] * 3
    everybody = [(usual, Reading(20, 100))] * 20
    assert reference(few).factor < 1.7
    assert reference(everybody).factor > 3.0


@given(
    st.booleans(),
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=20),
        st.tuples(*[st.floats(0, 1e6, width=32)] * 5).map(Figure._make),
        max_size=6,
    ),
)
def test_a_baseline_survives_its_row(open_: bool, figures: dict[str, Figure]) -> None:
    baseline = Baseline(open_, figures)
    assert unpack(pack(baseline)) == baseline


def test_a_row_without_a_baseline_is_a_new_one_and_a_full_one_is_small() -> None:
    assert unpack(b"") == Baseline()
    names = (ERROR_RATE, FAIL_RATE, "p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "checkout_seconds")
    assert len(pack(Baseline(True, dict.fromkeys(names, Figure())))) < 220


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0.1, 7200)), max_size=200))
def test_a_score_stays_between_nothing_and_its_ceiling_whatever_comes(shown: list[tuple[float, float]]) -> None:
    baseline, opened = Baseline(), False
    for value, seconds in shown:
        evaluation = evaluate(baseline, {LATENCY: Reading(value)}, seconds, {LATENCY: PEERS})
        baseline = evaluation.baseline
        assert 0.0 <= baseline.figures[LATENCY].score <= RULES.ceiling
        assert (evaluation.change is Change.OPEN) == (baseline.open and not opened)
        assert (evaluation.change is Change.CLOSE) == (opened and not baseline.open)
        opened = baseline.open
