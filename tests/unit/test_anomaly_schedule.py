"""When a plugin is sampled, and that nothing which was counted in between is lost or hidden."""

from __future__ import annotations

import pytest

from services.ingest.anomaly import scoring
from services.ingest.anomaly.peers import Peers
from services.ingest.anomaly.schedule import LAYOUT, due, last_sample, sample
from services.ingest.beat import Beat, Health
from services.ingest.observation import observe
from services.ingest.plugin_state import PluginState

NOW = 1_000_000.0


class Life:
    """One plugin that beats; it is sampled whenever that is due."""

    def __init__(self, boot: str = "b1") -> None:
        self.state = PluginState("p1", release="1.0.0")
        self.at, self.boot, self.sequence = NOW, boot, 0
        self.errors = self.attempts = self.failures = 0

    def restart(self, boot: str) -> None:
        self.boot, self.sequence, self.errors, self.attempts, self.failures = boot, 0, 0, 0, 0

    def beat(self, seconds: float, errors: int = 0, attempts: int = 0, failures: int = 0, **numbers: float) -> bool:
        """Whether this beat was sampled."""
        self.at += seconds
        self.sequence += 1
        self.errors, self.attempts, self.failures = (
            self.errors + errors,
            self.attempts + attempts,
            self.failures + failures,
        )
        beat = Beat(
            self.boot, self.sequence, self.errors, self.attempts, self.failures, 0, "1.0.0", 0, "", Health.HEALTHY
        )
        beat.numbers = tuple(numbers.items())
        seen = observe(self.state, beat, self.at, package="relay", peers=Peers())
        if not due(seen, suspected=False):
            return False
        sample(seen)
        return True

    def figure(self, name: str = scoring.FAIL_RATE) -> scoring.Figure:
        return scoring.unpack(self.state.baseline[LAYOUT.size :]).figures[name]


@pytest.fixture
def life() -> Life:
    made = Life()
    assert made.beat(0)
    return made


def test_quiet_is_sampled_a_quarter_of_an_hour_at_a_time(life: Life) -> None:
    assert [life.beat(30, attempts=1) for _ in range(60)].count(True) == 2
    assert life.figure().base == pytest.approx(60, rel=0.02), "and all of it"


def test_what_goes_wrong_is_sampled_at_once_but_no_burst_of_beats(life: Life) -> None:
    assert life.beat(30, attempts=10, failures=1)
    assert [life.beat(1, attempts=10, failures=1) for _ in range(25)].count(True) == 2


def test_levels_are_sampled_each_minute(life: Life) -> None:
    assert [life.beat(30, delivery_ms=20.0) for _ in range(10)].count(True) == 5
    assert life.figure("delivery_ms").seconds == pytest.approx(150, rel=0.02)


def test_a_suspicious_plugin_is_sampled_closely(life: Life) -> None:
    for _ in range(5):
        life.beat(900, attempts=100, failures=1)
    assert not life.beat(30, attempts=100)
    life.beat(30, attempts=100, failures=15)
    life.beat(30, attempts=100, failures=15)
    assert last_sample(life.state.baseline).suspicious
    assert life.beat(30, attempts=100)


def test_quiet_before_hides_nothing_of_what_went_wrong_after_it() -> None:
    scores = []
    for quiet in (0, 29):
        life = Life()
        life.beat(0)
        for _ in range(5):
            life.beat(900, attempts=100, failures=1)
        for _ in range(quiet):
            life.beat(30, attempts=3)
        life.beat(30, attempts=100, failures=6)
        scores.append(life.figure().score)
    assert scores[1] == pytest.approx(scores[0], rel=0.2)


def test_the_first_beat_of_a_boot_is_no_window(life: Life) -> None:
    for _ in range(5):
        life.beat(900, attempts=100, failures=1)
    before = life.figure()
    life.restart("b2")
    life.beat(30, attempts=1000, failures=900)
    assert life.figure() == before
    life.beat(900, attempts=100, failures=1)
    assert life.figure().base > before.base


def test_what_began_before_an_apply_is_not_sampled_and_suspicion_ends_with_it(life: Life) -> None:
    for _ in range(5):
        life.beat(900, attempts=100, failures=1)
    life.beat(30, attempts=100, failures=15)
    assert life.figure().score == 5.0
    life.state.count_from_time = life.at + 10
    life.beat(30, attempts=100, failures=90)
    assert life.figure().score == 0.0
    life.beat(30, attempts=100, failures=15)
    assert life.figure().score == 5.0
