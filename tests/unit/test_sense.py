"""When a plugin's detector listens, and that nothing which was counted in between is lost or hidden."""

from __future__ import annotations

import pytest

from services.ingest import anomaly, sense, telemetry
from services.ingest.detection import Health
from services.ingest.sense import LAYOUT, Peers, due, listen, read
from services.ingest.telemetry import Beat, Pulse

NOW = 1_000_000.0


class Life:
    """One plugin that beats; the detector listens whenever it is due."""

    def __init__(self, boot: str = "b1") -> None:
        self.pulse = Pulse("p1", release="1.0.0")
        self.at, self.boot, self.sequence = NOW, boot, 0
        self.errors = self.attempts = self.failures = 0
        self.listened: list[float] = []
        self.said: list[sense.Said] = []

    def restart(self, boot: str) -> None:
        self.boot, self.sequence, self.errors, self.attempts, self.failures = boot, 0, 0, 0, 0

    def beat(self, seconds: float, errors: int = 0, attempts: int = 0, failures: int = 0, **numbers: float) -> bool:
        """Whether the detector listened to this beat."""
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
        heard = telemetry.hear(self.pulse, beat, self.at)
        assert heard.window is not None
        if not due(self.pulse, beat, heard.window):
            return False
        self.said.append(listen(self.pulse, "relay", beat, heard.window, Peers()))
        return True

    def figure(self, name: str = anomaly.FAIL_RATE) -> anomaly.Figure:
        return anomaly.unpack(self.pulse.sense[LAYOUT.size :]).figures[name]


@pytest.fixture
def life() -> Life:
    made = Life()
    assert made.beat(0)
    return made


def test_quiet_is_heard_a_quarter_of_an_hour_at_a_time(life: Life) -> None:
    assert [life.beat(30, attempts=1) for _ in range(60)].count(True) == 2
    assert life.figure().base == pytest.approx(60, rel=0.02), "and all of it"


def test_what_goes_wrong_is_heard_at_once_but_no_burst_of_beats(life: Life) -> None:
    assert life.beat(30, attempts=10, failures=1)
    assert [life.beat(1, attempts=10, failures=1) for _ in range(25)].count(True) == 2


def test_levels_are_heard_each_minute(life: Life) -> None:
    assert [life.beat(30, delivery_ms=20.0) for _ in range(10)].count(True) == 5
    assert life.figure("delivery_ms").seconds == pytest.approx(150, rel=0.02)


def test_a_suspicious_plugin_is_listened_to_closely(life: Life) -> None:
    for _ in range(5):
        life.beat(900, attempts=100, failures=1)
    assert not life.beat(30, attempts=100)
    life.beat(30, attempts=100, failures=15)
    life.beat(30, attempts=100, failures=15)
    assert read(life.pulse.sense).suspicious
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


def test_what_began_before_an_apply_is_not_heard_and_suspicion_ends_with_it(life: Life) -> None:
    for _ in range(5):
        life.beat(900, attempts=100, failures=1)
    life.beat(30, attempts=100, failures=15)
    assert life.figure().score == 5.0
    life.pulse.watch_from = life.at + 10
    life.beat(30, attempts=100, failures=90)
    assert life.figure().score == 0.0
    life.beat(30, attempts=100, failures=15)
    assert life.figure().score == 5.0
