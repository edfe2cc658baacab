"""What the plane makes of an agent that its host hinders, and of a plugin that left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella.v1 import agent_pb2 as pb
from services.ingest import detectors
from services.ingest.anomaly.peers import Peers
from services.ingest.beat import AgentCondition, Beat, Health
from services.ingest.detectors import BITS, agent_degraded, plugin_away
from services.ingest.finding import Finding, Severity
from services.ingest.gateway.departure import LONGEST_ABSENCE, back_by_time
from services.ingest.observation import Observation, observe
from services.ingest.plugin_state import PluginState

NOW = 1_800_000_000.0
WEEK = 7 * 86_400.0
FULL = AgentCondition("disk_full", "/srv/agent", "No space left on device")


def heard(*conditions: AgentCondition, open_types: int = 0) -> Observation:
    """What is found in a beat that carries these conditions."""
    state = PluginState("p", open_types=open_types, last_beat_time=NOW - 1)
    counted = {"errors": 0, "webhook_attempts": 0, "webhook_failures": 0, "signature_failures": 0, "generation": 0}
    beat = Beat("b", 1, release="1.2.0", digest="", health=Health.HEALTHY, conditions=conditions, **counted)  # type: ignore[arg-type]
    observation = observe(state, beat, NOW, package="relay", peers=Peers())
    detectors.detect(observation)
    return observation


def degraded(*conditions: AgentCondition) -> Finding:
    (finding,) = heard(*conditions).findings
    assert finding.type == "agent_degraded"
    return finding


def test_a_condition_is_an_anomaly_at_once_that_names_the_place_and_the_remedy() -> None:
    finding = degraded(FULL)
    assert finding.severity is Severity.MEDIUM
    assert finding.summary == (
        "disk_full at /srv/agent (No space left on device): free space in /srv/agent or enlarge its disk"
    )
    assert finding.figures == (("conditions", 1.0),)


@pytest.mark.parametrize("type_", sorted(agent_degraded.REMEDIES))
def test_each_condition_has_a_remedy_that_names_its_place(type_: str) -> None:
    summary = degraded(AgentCondition(type_, "/srv/agent", "")).summary
    assert summary.startswith(f"{type_} at /srv/agent: ")
    assert summary.count("/srv/agent") == 2
    assert "{" not in summary


def test_a_condition_that_nobody_knows_yet_is_shown_as_it_came() -> None:
    assert (
        degraded(AgentCondition("gremlins", "", "")).summary == "gremlins at the agent: look at the agent on its host"
    )


def test_braces_in_a_path_are_only_letters() -> None:
    assert "{0}/x" in degraded(AgentCondition("disk_full", "/srv/{0}/x", "{}")).summary


def test_several_conditions_are_one_finding_and_a_failing_disk_is_worse() -> None:
    finding = degraded(FULL, AgentCondition("disk_failing", "/srv", "Input/output error"))
    assert (finding.severity, finding.figures) == (Severity.HIGH, (("conditions", 2.0),))
    assert finding.summary.count("; ") == 1


@pytest.mark.parametrize("detector", [agent_degraded.DETECTOR, plugin_away.DETECTOR], ids=lambda one: one.type)
def test_a_beat_without_trouble_speaks_for_its_end(detector: detectors.detector.Detector) -> None:
    seen = heard(open_types=detector.bit)
    assert seen.findings == []
    assert detector.due(seen) and detector.well(seen) is True
    assert not detector.due(heard()), "nothing is looked at where nothing is open"


def test_the_bits_are_each_of_one_type() -> None:
    assert BITS["plugin_away"] == 256 and BITS["agent_degraded"] == 512
    assert len(set(BITS.values())) == len(BITS)


def test_an_absence_says_how_long_and_what_to_do_and_wakes_nobody() -> None:
    finding = plugin_away.absence(725.4)
    assert (finding.type, finding.severity) == ("plugin_away", Severity.LOW)
    assert "725 s ago" in finding.summary and "start it again, or retire it" in finding.summary


def goodbye(*, within: int | None = None, by: int | None = None) -> pb.Goodbye:
    made = pb.Goodbye(reason="shutdown")
    if within is not None:
        made.back_within_duration.seconds = within
    if by is not None:
        made.back_by_time.seconds = by
    return made


def test_who_names_no_time_has_none() -> None:
    assert back_by_time(goodbye(), NOW, 0.0) == 0.0


@pytest.mark.parametrize("skew", [0.0, -1_750_000_000.0, 86_400.0])
def test_a_duration_counts_on_the_planes_clock_whatever_the_agents_says(skew: float) -> None:
    assert back_by_time(goodbye(within=300), NOW, skew) == NOW + 300
    assert back_by_time(goodbye(within=300, by=int(NOW) + 9000), NOW, skew) == NOW + 300, "and goes before a time"


@pytest.mark.parametrize("skew", [0.0, -86_400.0, 86_400.0])
def test_a_time_is_meant_by_the_agents_own_clock(skew: float) -> None:
    assert back_by_time(goodbye(by=int(NOW + skew) + 300), NOW, skew) == NOW + 300


SECONDS = st.integers(-62_135_596_800, 253_402_300_799)


@given(within=st.none() | SECONDS, by=st.none() | SECONDS, skew=st.floats(-1e11, 1e11))
def test_nobody_is_excused_for_longer_than_a_week_or_in_the_past(
    within: int | None, by: int | None, skew: float
) -> None:
    named = back_by_time(goodbye(within=within, by=by), NOW, skew)
    if within is None and by is None:
        assert named == 0.0
    else:
        assert NOW <= named <= NOW + LONGEST_ABSENCE == NOW + WEEK
