"""The fleet in the overview: each plugin is counted once, by its health or as away."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from prunella.v1 import agent_pb2, ingest_pb2
from services.ops.wire import overview

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@st.composite
def groups(draw: st.DrawFn) -> ingest_pb2.FleetGroup:
    plugins = draw(st.integers(0, 5))
    away = draw(st.integers(0, plugins))
    health = draw(st.sampled_from([agent_pb2.HEALTH_HEALTHY, agent_pb2.HEALTH_DOWN]))
    return ingest_pb2.FleetGroup(health=health, plugins=plugins, away=away)


def test_who_left_is_away_and_neither_healthy_nor_down() -> None:
    healthy = ingest_pb2.FleetGroup(health=agent_pb2.HEALTH_HEALTHY, plugins=5, connected=3, away=2)
    gone = ingest_pb2.FleetGroup(health=agent_pb2.HEALTH_DOWN, plugins=1, away=1)
    told = overview.fleet(ingest_pb2.GetFleetResponse(plugins=6, groups=[healthy, gone]), NOW)
    assert told is not None
    assert dict(told.by_health) == {"healthy": 3, "away": 3}
    assert (told.plugins, told.connected) == (6, 3)


@given(st.lists(groups(), max_size=6))
def test_each_plugin_is_counted_once(found: list[ingest_pb2.FleetGroup]) -> None:
    count = sum(group.plugins for group in found)
    told = overview.fleet(ingest_pb2.GetFleetResponse(plugins=count, groups=found), NOW)
    assert told is not None
    assert sum(told.by_health.values()) == count
    assert all(told.by_health.values())
