"""Stories, figures and the overview from facts that come twice and in any order, on a real database."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.errors import Invalid, NotFound
from prunella.v1 import events_pb2 as facts
from prunella.v1 import stories_pb2 as pb
from prunella.v1.events_pb2 import Event
from services.ops import kpis as heart
from services.ops.sweeps import place_facts
from services.ops.sweeps.projection_backfill import backfill_projections
from tests.service.projections_plane import forget, hear, kpis, ops, overview, rows, stories
from tests.unit.healing_facts import (
    INCIDENT,
    PLUGIN,
    START,
    applied,
    closed,
    created,
    decided,
    escalated,
    event,
    healing,
    mitigated,
    opened,
    rolled_back,
    staged,
    succeeded,
    uid,
)

OTHER = "01a1fe1e-9852-763d-8bbb-00000000f008"
SECOND, THIRD = uid(9002), uid(9003)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
async def plane(servers: Servers) -> AsyncIterator[Plane]:
    backing = await BackingServices.make(servers)
    made = Plane(backing, names=["ops"])
    try:
        yield await made.start()
    finally:
        await made.stop()
        await backing.discard()


@pytest.fixture
async def empty(plane: Plane) -> Plane:
    await forget(plane, "timeline", "labels")
    return plane


def life() -> list[Event]:
    """One healed in 9 s; one taken back, escalated and closed by hand; one open at another merchant; people; errors."""
    label = facts.PluginEnrolled(package="checkout", release="1.2.0", label="shop-7")
    own: dict[str, Any] = {"plugin": OTHER, "incident": SECOND}
    theirs: dict[str, Any] = {"plugin": uid(7), "incident": THIRD, "merchant": "merchant-9"}
    plane: dict[str, Any] = {"plugin": "", "incident": "", "merchant": ""}
    resolved = facts.ReportResolved(report=uid(500))
    resolved.open_duration.FromTimedelta(timedelta(seconds=60))
    ends = facts.TasksFinished()
    for state in ("completed", "completed", "retrying", "failed"):
        ends.outcomes.add(task=uid(600), state=state)
    return [
        event(0, label, incident=""),
        *healing(),
        opened(100, severity=facts.SEVERITY_HIGH, lag=3.0, **own),
        decided(101, "d2", confidence=0.42, **own),
        created(102, "a2", "d2", **own),
        staged(103, "a2", **own),
        applied(104, "a2", **own),
        rolled_back(110, "a2", "d2", **own),
        escalated(111, **own),
        closed(200, actor="operators/ada", resolution="fixed by hand", **own),
        opened(300, severity=facts.SEVERITY_CRITICAL, **theirs),
        decided(301, "d3", confidence=0.44, **theirs),
        created(302, "a3", "d3", **theirs),
        event(400, facts.KillSwitchEngaged(scope="global", epoch=1), actor="operators/ada", **plane),
        event(401, facts.KillSwitchReleased(scope="global", epoch=1), actor="operators/ada", **plane),
        event(402, facts.KillSwitchEngaged(scope="merchants/m", epoch=2), actor="operators/ada", **plane),
        event(403, facts.IncidentCommented(comment="c", text="hm"), actor="operators/ada"),
        event(500, facts.ErrorReported(report=uid(500)), incident=""),
        event(560, resolved, incident=""),
        event(570, ends, **plane),
    ]


async def test_an_empty_plane_says_no_data_and_makes_nothing_up(empty: Plane) -> None:
    found = await kpis(empty)
    for ratio in (found.success, found.rollback, found.automatic_resolution):
        assert (ratio.HasField("value"), ratio.HasField("met"), ratio.denominator) == (False, False, 0)
    assert (found.success.target, found.rollback.target) == (0.95, 0.02)
    for times, target in ((found.time_to_detect, 120.0), (found.time_to_repair, 600.0)):
        assert (times.cases, times.HasField("mean_seconds"), times.HasField("p95_seconds")) == (0, False, False)
        assert times.target_seconds == target
    assert not found.HasField("calibration_error")
    assert [(one.decisions, one.HasField("observed")) for one in found.calibration] == [(0, False)] * 10
    assert not found.HasField("fleet")  # ingest is not there
    assert not found.queue.HasField("mean_resolution_seconds")
    assert not found.points
    seen = await overview(empty)
    assert not (seen.active_incidents or seen.attention or seen.HasField("fleet") or seen.HasField("queue"))
    assert not (await stories(empty)).stories


async def test_facts_twice_and_in_any_order_leave_the_same_rows(empty: Plane) -> None:
    await hear(empty, life())
    wanted = await rows(empty)
    assert all(wanted[table] for table in wanted if table != "retired_plugins")
    for seed in range(4):
        await forget(empty, "timeline", "labels")
        shuffled = [*life(), *life()]
        random.Random(seed).shuffle(shuffled)  # noqa: S311
        await hear(empty, shuffled)
        assert await rows(empty) == wanted, f"seed {seed}"


async def test_the_figures_of_a_window_are_what_happened_in_it(empty: Plane) -> None:
    await hear(empty, life())
    found = await kpis(empty, START - DAY, START + DAY)
    success = found.success
    assert (success.numerator, success.denominator, success.value, success.met) == (1, 2, 0.5, False)
    assert (found.rollback.numerator, found.rollback.value, found.rollback.met) == (1, 0.5, False)
    assert dict(found.attempts) == {"success": 1, "rolled_back": 1}
    detect, repair = found.time_to_detect, found.time_to_repair
    assert (detect.cases, detect.p50_seconds, detect.met) == (3, 1.0, True)
    assert detect.mean_seconds == pytest.approx(5 / 3)
    assert (repair.cases, repair.mean_seconds, repair.met) == (1, 9.0, True)
    assert dict(found.incidents_by_severity) == {"critical": 1, "high": 1, "medium": 1}
    assert dict(found.incidents_by_type) == {"webhook_fail_rate": 3}
    assert dict(found.incidents_ended) == {"mitigated": 1, "closed": 1}
    assert (found.automatic_resolution.numerator, found.automatic_resolution.denominator) == (1, 2)
    # A comment is no intervention.
    assert dict(found.manual_by_fact) == {"incident_closed": 1, "kill_switch_engaged": 2, "kill_switch_released": 1}
    bins = {place: one for place, one in enumerate(found.calibration) if one.decisions}
    assert set(bins) == {4, 8}
    assert (bins[4].decisions, bins[4].tried, bins[4].observed) == (2, 1, 0.0)
    assert (bins[8].predicted, bins[8].tried, bins[8].observed) == (0.87, 1, 1.0)
    assert found.calibration_error == pytest.approx((0.43 + 0.13) / 2)
    assert (found.queue.reports, found.queue.resolved, found.queue.mean_resolution_seconds) == (1, 1, 60.0)
    assert (found.queue.tries_completed, found.queue.tries_retrying, found.queue.tries_failed) == (2, 1, 1)
    assert sum(point.opened for point in found.points) == 3
    assert [point.mean_repair_seconds for point in found.points if point.HasField("mean_repair_seconds")] == [9.0]


async def test_figures_of_a_merchant_and_of_another_window_leave_out_what_is_not_theirs(empty: Plane) -> None:
    await hear(empty, life())
    theirs = await kpis(empty, START - DAY, START + DAY, merchant="merchants/merchant-9")
    assert dict(theirs.incidents_by_severity) == {"critical": 1}
    assert not theirs.success.HasField("value")
    assert not theirs.queue.HasField("tries_completed")
    later = await kpis(empty, START + DAY, START + 2 * DAY)
    assert later.time_to_repair.cases == later.success.denominator == later.manual_interventions == 0
    assert heart.window(START, START + DAY, START).step.total_seconds() == 1800


async def test_the_overview_shows_the_worst_first_and_what_to_type(empty: Plane) -> None:
    theirs: dict[str, Any] = {"plugin": uid(7), "merchant": "merchant-9", "incident": THIRD}
    await hear(empty, [*life(), event(404, facts.AttemptHeld(attempt="a3", gate="KILL_SWITCH"), **theirs)])
    seen = await overview(empty)
    (incident,) = seen.active_incidents
    assert incident.line.startswith("plugin …00000007: webhook_fail_rate, critical · webhook_fail_rate 0.60")
    assert incident.line.endswith("patch 1.2.0 → 1.2.3 staged, waiting for KILL_SWITCH")
    assert (incident.state, incident.attempt, incident.severity) == ("in_progress", "a3", facts.SEVERITY_CRITICAL)
    assert dict(seen.active_by_severity) == {"critical": 1}
    (item,) = seen.attention
    assert (item.kind, item.subject) == ("kill_switch", "merchants/m")
    assert item.command == 'prunella kill-switch release --scope merchants/m --reason "…"'
    assert not (await overview(empty, merchant="merchant-7")).active_incidents


async def test_what_is_needed_ends_with_its_incident_and_with_its_plugin(empty: Plane) -> None:
    label = event(0, facts.PluginEnrolled(label="shop-7"), incident="")
    stuck = event(20, facts.AttemptRollbackFailed(attempt="a1", to_release="1.2.3"))
    await hear(empty, [escalated(12), stuck, opened(1), label])
    kinds = {item.kind: item for item in (await overview(empty)).attention}
    assert set(kinds) == {"incident", "rollback_failed"}
    assert kinds["incident"].line.startswith("shop-7: webhook_fail_rate is yours now")
    assert kinds["incident"].command == f"prunella stories show {INCIDENT}"
    await hear(empty, [closed(30)])
    assert not (await overview(empty)).attention
    shut = event(40, facts.PluginQuarantined(), incident="")
    await hear(empty, [shut])
    assert [item.kind for item in (await overview(empty)).attention] == ["quarantine"]
    await hear(empty, [event(50, facts.PluginRetired(), incident="")])
    assert not (await overview(empty)).attention


async def test_a_story_is_told_with_its_steps_and_lists_page_by_their_own_query(empty: Plane) -> None:
    await hear(empty, life())
    request = pb.GetStoryRequest(name=f"incidents/{INCIDENT}")
    story = (await ops(empty).GetStory(request, timeout=10)).story
    assert story.summary == "shop-7: webhook_fail_rate (medium) · healed in 9.0 s by patch 1.2.0 → 1.2.3"
    assert [step.fact for step in story.steps][:2] == ["incident_opened", "decision_made"]
    assert story.rollback_command == 'prunella rollback a1 --reason "…"'
    first = await stories(empty, page_size=2)
    assert [one.name.rpartition("/")[2] for one in first.stories] == [THIRD, SECOND]
    assert not first.stories[0].steps
    rest = await stories(empty, page_size=2, page_token=first.next_page_token)
    assert [one.name.rpartition("/")[2] for one in rest.stories] == [INCIDENT]
    assert not rest.next_page_token
    with pytest.raises(Invalid) as refused:
        await stories(empty, page_size=2, page_token=first.next_page_token, plugin=PLUGIN)
    assert refused.value.reason == "PAGE_TOKEN_OF_ANOTHER_QUERY"


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"plugin": f"plugins/{OTHER}"}, [SECOND]),
        ({"merchant": "merchant-9"}, [THIRD]),
        ({"state": "in_progress"}, [THIRD]),
        ({"state": "open"}, []),
        ({"state": "mitigated"}, [INCIDENT]),
        ({"state": "closed"}, [SECOND]),
        ({"severity": facts.SEVERITY_HIGH}, [SECOND]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_stories_are_found_by_filters(empty: Plane, filters: dict[str, Any], wanted: list[str]) -> None:
    await hear(empty, life())
    assert [one.name.rpartition("/")[2] for one in (await stories(empty, **filters)).stories] == wanted


async def test_bad_questions_name_their_field_and_rule(plane: Plane) -> None:
    for asked, field in (
        (kpis(plane, START, START - DAY), "end_time"),
        (kpis(plane, START - 500 * DAY, START), "start_time"),
        (overview(plane, limit=-1), "limit"),
        (overview(plane, merchant="x" * 200), "merchant"),
        (stories(plane, state="broken"), "state"),
        (stories(plane, severity=9), "severity"),
        (stories(plane, plugin="incidents/x"), "plugin"),
        (stories(plane, page_token="x"), "page_token"),
        (ops(plane).GetStory(pb.GetStoryRequest(name="x"), timeout=10), "name"),
    ):
        with pytest.raises(Invalid) as refused:
            await asked
        assert refused.value.field == field
    with pytest.raises(NotFound):
        await ops(plane).GetStory(pb.GetStoryRequest(name=f"incidents/{uid(404)}"), timeout=10)


async def test_uptime_comes_from_probes_and_from_nothing_else(plane: Plane) -> None:
    async def probed() -> Any:
        services = {one.service: one.health for one in (await overview(plane)).services}
        return services if services.get("ops") == "serving" else None

    services = await until(probed, 20, what="a probe of ops")
    assert services["ingest"] == "unreachable"
    now = plane.clock.now()
    uptime = {one.service: one for one in (await kpis(plane, now - DAY, now + DAY)).uptime}
    assert uptime["ops"].ratio > 0
    assert uptime["ingest"].ratio == 0
    assert 0 < uptime["ops"].covered < 0.1
    before = await kpis(plane, START - 300 * DAY, START - 299 * DAY)
    assert not before.uptime


async def test_a_healing_that_is_taken_back_later_counts_as_taken_back(empty: Plane) -> None:
    back = event(20, facts.AttemptRollingBack(attempt="a1"), actor="operators/ada")
    await hear(empty, [rolled_back(21), back, succeeded(10), created(3), decided(2), opened(1), mitigated(11)])
    found = await kpis(empty, START - DAY, START + DAY)
    assert dict(found.attempts) == {"rolled_back": 1}
    assert dict(found.manual_by_fact) == {"attempt_rolling_back": 1}
    assert found.automatic_resolution.numerator == 0


async def test_facts_from_before_there_were_figures_are_projected_too(empty: Plane) -> None:
    await hear(empty, life())
    wanted = await rows(empty)
    ctx = empty.services["ops"].ctx
    await place_facts(ctx, ctx.clock.now())
    await forget(empty)
    await ctx.database.transaction(
        lambda tx: tx.run(
            "UPDATE ops.projection_backfill SET position = 0, end_position = (SELECT max(position) FROM ops.timeline)"
        )
    )

    async def projected() -> bool:
        # The service's own sweep may be at it.
        await backfill_projections(ctx, ctx.clock.now())
        return await rows(empty) == wanted

    await until(projected, 10, what="the past is projected")
    assert await backfill_projections(ctx, ctx.clock.now()) == 0
