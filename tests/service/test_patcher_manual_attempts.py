"""Attempts that a person wants: the same way as for a decision, with the person's name on it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices
from libs.common import rpc
from libs.common.bus import fact_name
from libs.common.errors import Denied, Invalid, NotFound, Problem, Refused
from libs.common.names import new_id
from prunella.v1 import agent_pb2, events_pb2, ingest_pb2, patcher_pb2, patcher_pb2_grpc
from tests.service.governance import approve, set_policy
from tests.service.patcher_alone import MAIN, IngestStandIn, PatcherAlone, archive, plugin_of

PATCH, RESTART = events_pb2.ACTION_PATCH, events_pb2.ACTION_RESTART
ROLLBACK, CONFIG = events_pb2.ACTION_ROLLBACK, events_pb2.ACTION_CONFIG_FIX


class Ingest(IngestStandIn):
    """Knows what its incidents are about."""

    async def GetIncident(self, request: Any, context: Any) -> ingest_pb2.GetIncidentResponse:  # noqa: N802
        answer = await super().GetIncident(request, context)
        answer.incident.plugin, answer.incident.type = "p1", "webhook_fail_rate"
        answer.incident.severity = events_pb2.SEVERITY_MEDIUM
        return answer


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing, ingest=Ingest())
    try:
        await patcher.start(agent=True)
        await patcher.publish(archive(tmp_path / "good"))
        patcher.ingest.plugins["p1"] = plugin_of("p1")
        patcher.report()
        yield patcher
    finally:
        await patcher.stop()


async def create(alone: PatcherAlone, person: str = "ann", **values: Any) -> patcher_pb2.Attempt:
    given = {"plugin": "p1", "action": PATCH, "target": "1.2.3", "reason": "ann knows", "request_id": new_id()} | values
    channel = rpc.channel(alone.plane.addresses["patcher"], caller="operator", key=alone.plane.key, operator=person)
    try:
        stub: Any = patcher_pb2_grpc.PatcherServiceStub(channel)
        answer = await stub.CreateAttempt(patcher_pb2.CreateAttemptRequest(**given), timeout=10)
    finally:
        await channel.close()
    made: patcher_pb2.Attempt = answer.attempt
    return made


async def test_a_patch_by_hand_is_staged_permitted_and_watched_like_any_other(alone: PatcherAlone) -> None:
    incident = new_id()
    # Automation handed it to people; that is when a person acts.
    alone.ingest.incidents[incident] = ("escalated", 2)
    made = await create(alone, plugin="", incident=f"incidents/{incident}")
    assert (made.state, made.author, made.incident, made.round) == ("staging", "operators/ann", incident, 2)
    healed = await alone.attempt("success")
    assert healed.name == made.name and healed.permitted and healed.staging.passed
    assert [step.to_state for step in healed.history][-3:] == ["probation", "committing", "success"]
    told = await alone.plane.facts("attempt_created")
    assert (told[0].actor, told[0].incident) == ("operators/ann", incident)
    assert told[0].reason.endswith(": ann knows")


async def test_a_repeated_request_is_the_same_attempt_and_another_one_needs_another_id(alone: PatcherAlone) -> None:
    request = new_id()
    first = await create(alone, action=RESTART, target="", request_id=request)
    again = await create(alone, action=RESTART, target="", request_id=request)
    assert first.name == again.name
    with pytest.raises(Refused) as reused:
        await create(alone, request_id=request)
    assert reused.value.reason == "REQUEST_ID_REUSED"
    await alone.attempt("success")
    assert alone.ingest.commands[0].kind == agent_pb2.COMMAND_KIND_RESTART


async def test_the_kill_switch_refuses_a_person_too(alone: PatcherAlone) -> None:
    engage = patcher_pb2.EngageKillSwitchRequest(scope="global", reason="stop", request_id=new_id())
    await alone.stub.EngageKillSwitch(engage, timeout=10)
    made = await create(alone)
    assert (made.state, not alone.ingest.commands) == ("refused", True)
    (told,) = await alone.plane.facts("attempt_refused")
    assert (told.attempt_refused.gate, told.actor) == ("KILL_SWITCH", "operators/ann")


async def test_who_wants_it_has_no_vote_on_it(alone: PatcherAlone, tmp_path: Path) -> None:
    await alone.publish(archive(tmp_path / "major", main=f"{MAIN}# two\n"), version="2.0.0")
    await set_policy(alone, require_staging=False)
    made = await create(alone, target="2.0.0")
    asked = await alone.attempt("awaiting_approval")
    assert asked.name == made.name
    assert sorted(asked.approval.excluded) == ["ann", "local"], "the publisher and who wants it"
    with pytest.raises(Denied) as own:
        await approve(alone, "ann", asked)
    assert own.value.reason == "APPROVAL_BY_AUTHOR"
    await approve(alone, "ben", asked)
    assert (await approve(alone, "cid", asked)).state == "applying"


WRONG: dict[str, tuple[dict[str, Any], type[Problem], str, str]] = {
    "no action": ({"action": 0}, Invalid, "ACTION_INVALID", "action"),
    "asking people": ({"action": events_pb2.ACTION_NOTIFY_OPS}, Invalid, "ACTION_INVALID", "action"),
    "no reason": ({"reason": " "}, Invalid, "REASON_MISSING", "reason"),
    "no target": ({"target": ""}, Invalid, "TARGET_MISSING", "target"),
    "no version": ({"target": "../etc"}, Invalid, "TARGET_INVALID", "target"),
    "a restart with one": ({"action": RESTART}, Invalid, "TARGET_INVALID", "target"),
    "nothing to do it to": ({"plugin": ""}, Invalid, "PLUGIN_MISSING", "plugin"),
    "an unknown plugin": ({"plugin": "p9"}, NotFound, "PLUGIN_UNKNOWN", "plugin"),
    "an unknown incident": ({"incident": "incidents/nope"}, NotFound, "INCIDENT_NOT_FOUND", ""),
    "an incident that is over": ({"incident": "incidents/over"}, Refused, "INCIDENT_OVER", "incident"),
    "another plugin's incident": (
        {"incident": "incidents/live", "plugin": "p2"}, Invalid, "PLUGIN_DIFFERS", "plugin"
    ),
    "an unpublished release": ({"target": "9.9.9"}, NotFound, "RELEASE_UNKNOWN", "target"),
    "an unpublished configuration": ({"action": CONFIG, "target": "c9"}, NotFound, "CONFIGURATION_UNKNOWN", "target"),
    "no configuration to have": ({"action": CONFIG, "target": ""}, NotFound, "CONFIGURATION_UNKNOWN", "target"),
    "going back to nothing published": (
        {"action": ROLLBACK, "target": "0.0.9"}, NotFound, "RELEASE_UNKNOWN", "target"
    ),
    "an endless request id": ({"request_id": "x" * 200}, Invalid, "BAD_REQUEST_ID", "request_id"),
}  # fmt: skip


async def test_what_cannot_be_wanted_is_refused_by_its_field_and_leaves_nothing(alone: PatcherAlone) -> None:
    alone.ingest.incidents |= {"over": ("mitigated", 1), "live": ("open", 1)}
    for case, (values, kind, reason, field) in WRONG.items():
        with pytest.raises(kind) as refused:
            await create(alone, **values)
        assert (refused.value.reason, refused.value.field) == (reason, field), case
    alone.ingest.plugins["p1"].state = "quarantined"
    with pytest.raises(Refused) as barred:
        await create(alone)
    assert barred.value.reason == "PLUGIN_INACTIVE"
    assert not [fact_name(event) for event in await alone.plane.facts() if "attempt" in fact_name(event)]
