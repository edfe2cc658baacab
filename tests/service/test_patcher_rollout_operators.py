"""People steer a rollout: pause, resume, promote, abort, approve; and what they ask for wrongly is said to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices, until
from libs.common import rpc
from libs.common.errors import Conflict, Denied, Invalid, NotFound, Refused, Stale
from libs.common.names import new_id
from prunella.v1 import patcher_pb2, patcher_pb2_grpc
from tests.service.governance import approve, reject, set_policy
from tests.service.rollout_fleet import Fleet

HOUR = 3_600


@pytest.fixture
async def fleet(backing: BackingServices, tmp_path: Path) -> AsyncIterator[Fleet]:
    made = await Fleet.of(backing, tmp_path, 6)
    try:
        yield made
    finally:
        await made.stop()


async def wish(fleet: Fleet, verb: str, name: str, **fields: Any) -> patcher_pb2.Rollout:
    """One of the four verbs."""
    asked = {"name": name, "reason": "a person wants it", "request_id": new_id()} | fields
    request = getattr(patcher_pb2, f"{verb}RolloutRequest")(**asked)
    return (await getattr(fleet.stub, f"{verb}Rollout")(request, timeout=10)).rollout  # type: ignore[no-any-return]


def person(fleet: Fleet, name: str) -> patcher_pb2_grpc.PatcherServiceAsyncStub:
    """The patcher as this person calls it, through ops."""
    plane = fleet.plane
    kept = f"patcher as {name}"
    plane._channels[kept] = rpc.channel(plane.addresses["patcher"], caller="ops", key=plane.key, operator=name)
    return patcher_pb2_grpc.PatcherServiceStub(plane._channels[kept])


async def test_a_paused_rollout_starts_nothing_goes_on_when_resumed_and_is_promoted_out_of_its_soak(
    fleet: Fleet,
) -> None:
    made = await fleet.create(soak_seconds=HOUR)
    paused = await wish(fleet, "Pause", made.name)
    assert (paused.state, paused.history[-1].actor) == ("paused", "operators/local")
    assert (await wish(fleet, "Pause", made.name)).state == "paused", "asked twice changes nothing"

    async def settled() -> bool:
        return not (await fleet.rollout(made.name)).figures.in_flight

    await until(settled, 20.0, what="nothing is in flight")
    before = len(fleet.ingest.commands)
    assert (await fleet.rollout(made.name)).state == "paused"
    assert len(fleet.ingest.commands) == before

    assert (await wish(fleet, "Resume", made.name)).state == "running"
    soaking = await fleet.reaches(made.name, "soaking")
    assert (soaking.wave, soaking.figures.healthy) == (1, 2)
    request = new_id()
    promoted = await wish(fleet, "Promote", made.name, request_id=request)
    assert (promoted.state, promoted.wave) == ("running", 2)
    assert (await wish(fleet, "Promote", made.name, request_id=request)).wave == 2, "a repeat is no second promotion"
    assert [word for word in await fleet.told() if word in {"paused", "resumed", "promoted"}] == [
        "paused", "resumed", "promoted",
    ]  # fmt: skip


@pytest.mark.parametrize(("scope", "release"), [("all", "1.2.0"), ("nothing", "1.2.3")])
async def test_an_aborted_rollout_takes_back_as_much_as_is_asked_for(fleet: Fleet, scope: str, release: str) -> None:
    made = await fleet.create(waves=["2", "100%"], soak_seconds=HOUR)
    await fleet.reaches(made.name, "soaking")
    await wish(fleet, "Abort", made.name, rollback_scope=scope)
    done = await fleet.reaches(made.name, "aborted")
    touched = [member for member in (await fleet.members(made.name)).values() if member.wave == 1]
    assert {fleet.ingest.plugins[member.plugin].release for member in touched} == {release}
    assert {member.state for member in touched} == {"rolled_back" if scope == "all" else "healthy"}
    assert done.figures.rolled_back == (2 if scope == "all" else 0)
    with pytest.raises(Refused, match="cannot be resumed"):
        await wish(fleet, "Resume", made.name)
    again = await fleet.create(waves=["100%"], soak_seconds=HOUR)
    assert again.state == "running", "its plugins are free for the next"


async def test_a_rollout_to_many_waits_until_a_person_other_than_its_author_approves(fleet: Fleet) -> None:
    policy = patcher_pb2.Policy(high_impact_plugins=3, multisig_quorum=1)
    change = patcher_pb2.UpdatePolicyRequest(policy=policy, reason="few are many here", request_id=new_id())
    change.update_mask.paths.extend(["high_impact_plugins", "multisig_quorum"])
    await fleet.stub.UpdatePolicy(change, timeout=5)
    ann = person(fleet, "ann")
    made = await fleet.create()
    assert (made.state, made.approval.status) == ("pending", "open")
    assert '"scope":["plugins/p1"' in made.approval.plan
    assert "local" in made.approval.excluded
    assert not fleet.ingest.commands
    request = patcher_pb2.RejectAttemptRequest(
        name=made.name, plan_hash=made.approval.plan_hash, reason="not today", request_id=new_id()
    )
    with pytest.raises(Denied):
        await fleet.stub.RejectAttempt(request, timeout=5)
    await ann.RejectAttempt(request, timeout=5)
    done = await fleet.reaches(made.name, "aborted")
    assert "rejected" in done.reason

    made = await fleet.create()
    change = patcher_pb2.UpdatePolicyRequest(
        policy=patcher_pb2.Policy(min_confidence=0.8), reason="be surer", request_id=new_id()
    )
    change.update_mask.paths.append("min_confidence")
    await fleet.stub.UpdatePolicy(change, timeout=5)
    old = patcher_pb2.ApproveAttemptRequest(name=made.name, plan_hash=made.approval.plan_hash, request_id=new_id())
    with pytest.raises((Stale, Refused)):
        await ann.ApproveAttempt(old, timeout=5)

    async def asked_anew() -> patcher_pb2.Rollout | None:
        found = await fleet.rollout(made.name)
        return found if found.approval.plan_hash != made.approval.plan_hash else None

    made = await until(asked_anew, what="people are asked about the changed plan")
    approve = patcher_pb2.ApproveAttemptRequest(
        name=made.name, plan_hash=made.approval.plan_hash, reason="read it", request_id=new_id()
    )
    await ann.ApproveAttempt(approve, timeout=5)
    await fleet.reaches(made.name, "running", "succeeded")


async def test_a_rollout_that_waits_can_be_approved_when_nobody_would_be_asked_any_more_and_a_late_no_is_refused(
    fleet: Fleet,
) -> None:
    await set_policy(fleet, high_impact_plugins=3, multisig_quorum=1)
    made = await fleet.create(soak_seconds=HOUR)
    await set_policy(fleet, high_impact_plugins=50)

    async def asked_anew() -> patcher_pb2.Rollout | None:
        found = await fleet.rollout(made.name)
        return found if found.approval.plan_hash != made.approval.plan_hash else None

    made = await until(asked_anew, what="people are asked about the plan as it is now")
    assert made.state == "pending"
    assert (await approve(fleet, "ann", made)).state == "running"
    with pytest.raises(Refused) as late:
        await reject(fleet, "ben", made)
    assert late.value.reason == "ROLLOUT_NOT_WAITING"
    after = await fleet.rollout(made.name)
    assert (after.state in {"running", "soaking"}, after.approval.status) == (True, "approved")
    assert [event.approval_ended.outcome for event in await fleet.plane.facts("approval_ended")] == ["void", "approved"]


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"package": ""}, Invalid, "package must be given"),
    ({"package": "unknown"}, NotFound, "no release 1.2.3 of package unknown"),
    ({"target": "9.9.9"}, NotFound, "no release 9.9.9"),
    ({"config": True, "target": "blue"}, NotFound, "no configuration blue"),
    ({"reason": " "}, Invalid, "reason must say why"),
    ({"merchants": ["nobody"]}, Invalid, "reaches no plugin"),
    ({"waves": ["5", "101%"]}, Invalid, "at most 100"),
    ({"waves": ["5", "0%"]}, Invalid, "such as 5, or a share"),
    ({"waves": ["five"]}, Invalid, "such as 5, or a share"),
    ({"waves": ["50%", "20%", "100%"]}, Invalid, "reach further"),
    ({"waves": ["5", "50%"]}, Invalid, "must be 100 in the last wave"),
    ({"budget": -1}, Invalid, "settings.budget must be"),
    ({"budget": 20_000}, Invalid, "budget must be 1 to 10,000"),
    ({"exposure": -1}, Invalid, "exposure must be"),
    ({"alpha": 0.5}, Invalid, "alpha must be"),
    ({"soak_seconds": -1}, Invalid, "soak must be"),
    ({"soak_seconds": 10**9}, Invalid, "at most 90 days"),
    ({"canaries": ["nobody"]}, Invalid, "must name an active plugin"),
]


async def test_what_is_wrong_with_a_rollout_is_said_and_nothing_is_changed(fleet: Fleet) -> None:
    for fields, kind, words in BAD:
        with pytest.raises(kind) as told:
            await fleet.create(**fields)
        assert words in str(told.value), (fields, str(told.value))
    tried = await fleet.create(validate_only=True, canaries=["shop-6"], waves=["1", "100%"])
    assert (tried.name, tried.figures.plugins, [wave.plugins for wave in tried.waves]) == ("", 6, [1, 5])
    assert not await fleet.plane.sql("SELECT 1 FROM patcher.rollouts")
    assert not await fleet.told()

    request = new_id()
    made = await fleet.create(request_id=request, soak_seconds=HOUR, canaries=["shop-6"], waves=["1", "100%"])
    again = await fleet.create(request_id=request, soak_seconds=HOUR, canaries=["shop-6"], waves=["1", "100%"])
    assert again.name == made.name, "the same request makes one rollout"
    with pytest.raises(Refused) as reused:
        await fleet.create(request_id=request)
    assert reused.value.reason == "REQUEST_ID_REUSED"
    assert [name for name, member in (await fleet.members(made.name)).items() if member.wave == 1] == ["p6"]
    with pytest.raises(Conflict, match="is not over"):
        await fleet.create(merchants=["m4"])
    with pytest.raises(Conflict, match="is not over"):
        await fleet.create(merchants=["m4"], validate_only=True)
    await steered_wrongly(fleet, made.name)


async def steered_wrongly(fleet: Fleet, name: str) -> None:
    for verb, where, fields, kind, words in [
        ("Pause", "rollouts/nothing", {}, NotFound, "no rollout nothing"),
        ("Pause", "attempts/x", {}, Invalid, "must look like rollouts/"),
        ("Pause", name, {"reason": ""}, Invalid, "reason must say why"),
        ("Abort", name, {"rollback_scope": "half"}, Invalid, "rollback_scope must be one of"),
    ]:
        with pytest.raises(kind, match=words):
            await wish(fleet, verb, where, **fields)
    with pytest.raises(Invalid, match="state must be one of"):
        await fleet.stub.ListRollouts(patcher_pb2.ListRolloutsRequest(state="odd"), timeout=5)
    with pytest.raises(Invalid, match="member_states must be"):
        await fleet.members(name, "odd")
    first = await fleet.stub.GetRollout(
        patcher_pb2.GetRolloutRequest(name=name, member_states=["all"], page_size=4), timeout=5
    )
    request = patcher_pb2.GetRolloutRequest(
        name=name, member_states=["all"], page_size=4, page_token=first.next_page_token
    )
    second = await fleet.stub.GetRollout(request, timeout=5)
    assert {member.plugin for member in [*first.members, *second.members]} == {f"p{n}" for n in range(1, 7)}
    assert not second.next_page_token
    listed = await fleet.stub.ListRollouts(patcher_pb2.ListRolloutsRequest(package="checkout"), timeout=5)
    assert [found.name for found in listed.rollouts] == [name]


OLDER = r"""
UPDATE patcher.approvals
SET due_time = due_time - CAST(:by AS interval), expire_time = expire_time - CAST(:by AS interval),
    detail = jsonb_set(detail, '{request_time}', to_jsonb(to_char(
        CAST(detail->>'request_time' AS timestamptz) - CAST(:by AS interval), 'YYYY-MM-DD"T"HH24\:MI\:SSOF')))
"""


async def test_a_rollout_nobody_answers_about_reminds_escalates_and_ends(fleet: Fleet) -> None:
    await set_policy(fleet, high_impact_plugins=3)
    made = await fleet.create()
    for seconds, times in ((901, 1), (900, 2)):
        await fleet.ctx.database.transaction(lambda tx, by=seconds: tx.run(OLDER, by=timedelta(seconds=by)))
        told = await fleet.plane.wait_for_fact("approval_overdue", times=times)
        assert (told.approval_overdue.subject, told.approval_overdue.escalated) == (made.name, times == 2)
    await fleet.ctx.database.transaction(lambda tx: tx.run(OLDER, by=timedelta(seconds=1800)))
    ended = await fleet.reaches(made.name, "aborted")
    assert "nobody answered within 1:00:00" in ended.reason
    with pytest.raises(Refused) as late:
        await approve(fleet, "ann", made)
    assert late.value.reason == "APPROVAL_EXPIRED"
    assert not fleet.ingest.commands
