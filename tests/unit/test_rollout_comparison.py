"""The rules compared as the benchmark does, on fewer rollouts; and the benchmark simulates what the machine does."""

from __future__ import annotations

import heapq

import pytest

from services.patcher.rollout import Bounds, MemberState, Outcome, Settled, State, Switched
from tests.bench import rollouts as bench
from tests.unit.rollout_stories import Story

ROLLOUTS = 100


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    return bench.compare(ROLLOUTS, (1, 16, 200))


@pytest.mark.parametrize("budget", ["budget_1", "budget_16", "budget_200"])
def test_a_build_that_breaks_a_fifth_breaks_five_plugins_at_most_and_good_ones_go_on(
    table: dict[str, dict[str, dict[str, dict[str, float]]]], budget: str
) -> None:
    bad, good = table["bad_20"]["prunella"][budget], table["good_2"]["prunella"][budget]
    assert bad["halted_percent"] == 100.0
    assert bad["broken_median"] <= 5 and bad["broken_p95"] <= 10
    assert good["halted_percent"] <= 4.0, "100 draws of at most 1 % stay at 4 % or below with 99.6 %"


def test_the_two_other_rules_are_late_or_jumpy(table: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    assert table["bad_20"]["hawkbit"]["budget_1"]["broken_median"] == 51
    assert table["good_2"]["running_percent"]["budget_1"]["halted_percent"] > 10
    assert table["bad_20"]["running_percent"]["budget_200"]["broken_median"] > 20


@pytest.mark.parametrize("build", ["good_2", "bad_5", "bad_20", "bad_50"])
@pytest.mark.parametrize("budget", [1, 16])
def test_the_machine_does_what_the_benchmark_simulates(build: str, budget: int) -> None:
    for number in range(3):
        wave = bench.plugins(f"machine/{build}/{number}", bench.BUILDS[build], 150)
        simulated = bench.ours(wave, budget)
        story, flight, time = Story(len(wave), budget=budget, bounds=Bounds(exposure=1)), list[tuple[float, int]](), 0.0
        while story.state() is State.RUNNING:
            for row in story.flying():
                if row.state is MemberState.STARTED:
                    story.sees(Switched(row))
                    heapq.heappush(flight, (time + wave[int(row.plugin[1:]) - 1][1], int(row.plugin[1:])))
            time, switch_number = heapq.heappop(flight)
            outcome = Outcome.REVERTED if wave[switch_number - 1][0] else Outcome.HEALTHY
            story.sees(Settled(story.rows[f"p{switch_number}"], outcome))
        assert (story.state() is State.ROLLING_BACK) == simulated.halted
        assert len(story.rollout.tallies[0].broken) == simulated.known
        assert story.rollout.tallies[0].exposed == simulated.switched
