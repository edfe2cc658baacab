"""Approvals through the door: distinct people, for exactly this plan, in time; and only they start the attempt."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client import REGISTRY

from deploy.local.testing import BackingServices, until
from libs.common.bus import fact_name
from libs.common.errors import Denied, Invalid, NotFound, Problem, Refused, Stale
from libs.common.names import new_id
from prunella.v1 import patcher_pb2
from services.patcher.sweeps.approvals import due
from tests.service.governance import approve, of, reject, set_policy, whole
from tests.service.patcher_alone import PatcherAlone, archive


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start()
        await patcher.publish(archive(tmp_path / "major"), version="2.0.0")
        await set_policy(patcher, require_staging=False)
        yield patcher
    finally:
        await patcher.stop()


async def asked(alone: PatcherAlone, plugin: str = "p1") -> patcher_pb2.Attempt:
    """An attempt that waits for two people."""
    await alone.decide(plugin=plugin, release="2.0.0")
    found: patcher_pb2.Attempt = await of(alone, plugin, "awaiting_approval")
    return found


OLDER = r"""
UPDATE patcher.approvals
SET due_time = due_time - CAST(:by AS interval), expire_time = expire_time - CAST(:by AS interval),
    detail = jsonb_set(detail, '{request_time}', to_jsonb(to_char(
        CAST(detail->>'request_time' AS timestamptz) - CAST(:by AS interval), 'YYYY-MM-DD"T"HH24\:MI\:SSOF')))
"""


async def later(alone: PatcherAlone, seconds: int) -> None:
    """Makes every approval that many seconds older."""
    await alone.ctx.database.transaction(lambda tx: tx.run(OLDER, by=timedelta(seconds=seconds)))


def counted(fact: str) -> float:
    return REGISTRY.get_sample_value("prunella_approval_facts_total", {"fact": f"approval_{fact}"}) or 0.0


async def test_two_people_start_the_attempt_and_one_does_not(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    assert '"to_release":"2.0.0"' in waiting.approval.plan
    assert sorted(waiting.approval.excluded) == ["decider", "local"]
    once = await approve(alone, "ann", waiting)
    assert (once.state, len(once.approval.votes)) == ("awaiting_approval", 1)
    assert not alone.ingest.commands
    twice = await approve(alone, "ben", waiting)
    assert (twice.state, twice.approval.status) == ("applying", "approved")
    await until(lambda: alone.ingest.commands, what="the command is issued")
    assert (await alone.ask(alone.ingest.commands[0])).granted
    told = await alone.plane.facts("approval_requested", "approval_given", "approval_ended")
    assert [fact_name(event) for event in told] == [
        "approval_requested", "approval_given", "approval_given", "approval_ended",
    ]  # fmt: skip
    assert told[-1].approval_ended.outcome == "approved"
    assert [event.actor for event in told[1:]] == ["operators/ann", "operators/ben", "operators/ben"]


async def test_each_vote_that_does_not_count_says_why(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    request = new_id()
    await approve(alone, "ann", waiting, request_id=request)
    repeated = await approve(alone, "ann", waiting, request_id=request)
    assert len(repeated.approval.votes) == 1, "the same request again is the same vote"
    cases: list[tuple[str, dict[str, str], type[Problem], str]] = [
        ("ann", {}, Refused, "APPROVED_TWICE"),
        ("Ann", {}, Refused, "APPROVED_TWICE"),
        ("local", {}, Denied, "APPROVAL_BY_AUTHOR"),
        ("decider", {}, Denied, "APPROVAL_BY_PROPOSER"),
        ("ben", {"plan_hash": "0" * 64}, Stale, "PLAN_CHANGED"),
        ("ben", {"plan_hash": ""}, Invalid, "PLAN_MISSING"),
        ("ben", {"role": "emperor"}, Invalid, "APPROVAL_ROLE"),
        ("ben", {"name": f"attempts/{new_id()}"}, NotFound, "ATTEMPT_UNKNOWN"),
    ]
    for who, changes, kind, reason in cases:
        with pytest.raises(kind) as refused:
            await approve(alone, who, waiting, **changes)
        assert refused.value.reason == reason, who
    known = await whole(alone, waiting.name)
    assert (known.state, len(known.approval.votes)) == ("awaiting_approval", 1)
    await set_policy(alone, require_multisig_for_major=False)
    await alone.decide(plugin="p2", release="2.0.0")
    free = await of(alone, "p2", "applying")
    with pytest.raises(Refused) as nobody:
        await approve(alone, "ann", free, plan_hash="x")
    assert nobody.value.reason == "APPROVAL_NOT_ASKED"


async def test_one_no_ends_it(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    await approve(alone, "ann", waiting)
    with pytest.raises(Invalid):
        await reject(alone, "ben", waiting, reason="")
    ended = await reject(alone, "ben", waiting)
    assert (ended.state, ended.approval.status) == ("refused", "rejected")
    told = await alone.plane.wait_for_fact("attempt_refused")
    assert (told.attempt_refused.gate, told.reason) == ("APPROVAL", "rejected by operators/ben: not today")
    with pytest.raises(Refused) as late:
        await approve(alone, "cem", waiting)
    assert late.value.reason == "APPROVAL_REJECTED"


async def test_people_are_reminded_then_others_are_told_then_it_expires(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    before = [counted(fact) for fact in ("reminded", "escalated", "expired")]
    for seconds, times in ((901, 1), (900, 2)):
        await later(alone, seconds)
        told = await alone.plane.wait_for_fact("approval_overdue", times=times)
        assert told.approval_overdue.escalated == (times == 2)
    await later(alone, 1800)
    ended = await of(alone, "p1", "cancelled")
    assert (ended.approval.status, ended.reason) == ("expired", "nobody approved it: nobody answered within 1:00:00")
    with pytest.raises(Refused) as late:
        await approve(alone, "ann", waiting)
    assert late.value.reason == "APPROVAL_EXPIRED"
    assert [counted(fact) for fact in ("reminded", "escalated", "expired")] == [number + 1 for number in before]


async def test_any_change_of_the_plan_voids_what_was_approved(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    await approve(alone, "ann", waiting)
    await set_policy(alone, min_confidence=0.8)

    async def anew() -> patcher_pb2.Attempt | None:
        found = await whole(alone, waiting.name)
        return found if found.approval.plan_hash != waiting.approval.plan_hash else None

    again = await until(anew, what="people are asked about the changed plan")
    assert (again.state, list(again.approval.votes)) == ("awaiting_approval", [])
    ends = [event.approval_ended.outcome for event in await alone.plane.facts("approval_ended")]
    assert ends == ["void"]
    with pytest.raises(Stale):
        await approve(alone, "ben", waiting)
    await approve(alone, "ann", again)
    assert (await approve(alone, "ben", again)).state == "applying"


async def test_seats_of_different_roles_need_different_people(alone: PatcherAlone) -> None:
    await set_policy(alone, multisig_roles=["approver", "admin"], multisig_approvers=["ann", "ben", "cem"])
    waiting = await asked(alone)
    with pytest.raises(Invalid, match="role must be named"):
        await approve(alone, "ann", waiting)
    with pytest.raises(Denied) as stranger:
        await approve(alone, "dan", waiting, role="admin")
    assert stranger.value.reason == "APPROVAL_ROLE"
    await approve(alone, "ann", waiting, role="approver")
    assert (await approve(alone, "ben", waiting, role="approver")).state == "awaiting_approval", "no admin yet"
    assert (await approve(alone, "cem", waiting, role="admin")).state == "applying"


async def test_gates_are_asked_again_after_the_last_yes(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    await approve(alone, "ann", waiting)
    engage = patcher_pb2.EngageKillSwitchRequest(scope="global", reason="a test", request_id="k")
    await alone.stub.EngageKillSwitch(engage, timeout=10)
    held = await approve(alone, "ben", waiting)
    assert (held.state, held.held_by) == ("staged", "KILL_SWITCH")
    await alone.release_switch("global")
    await of(alone, "p1", "applying")
    assert (await alone.ask(await alone.command("update"))).granted


async def test_a_policy_that_changes_before_the_permit_asks_people_once_more(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    await approve(alone, "ann", waiting)
    await approve(alone, "ben", waiting)
    command = await alone.command("update")
    await set_policy(alone, min_confidence=0.8)
    assert (await alone.ask(command)).gate == "APPROVAL"
    await alone.finish(command, "refused", detail="APPROVAL")
    again = await of(alone, "p1", "awaiting_approval")
    assert not again.approval.votes


async def test_when_the_policy_asks_nobody_any_more_who_was_asked_still_decides(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    await approve(alone, "ann", waiting)
    await set_policy(alone, require_multisig_for_major=False, multisig_quorum=1)

    async def anew() -> patcher_pb2.Attempt | None:
        found = await whole(alone, waiting.name)
        changed = found.approval.plan_hash != waiting.approval.plan_hash
        return found if changed and "asks nobody about this any more" in found.reason else None

    again = await until(anew, what="people are asked about the plan as it is now")
    assert (again.state, again.approval.quorum, list(again.approval.votes)) == ("awaiting_approval", 1, [])
    assert not alone.ingest.commands, "nothing but a person's yes starts it"
    assert (await approve(alone, "ben", again)).state == "applying"
    assert (await alone.ask(await alone.command("update"))).granted


@pytest.mark.parametrize("gone", ["release", "incident"])
async def test_what_has_nothing_to_go_on_for_any_more_ends_instead_of_beginning(alone: PatcherAlone, gone: str) -> None:
    waiting = await asked(alone)
    await approve(alone, "ann", waiting)
    if gone == "release":
        alone.ingest.plugins["p1"].release = "1.9.0"
    else:
        alone.ingest.incidents.clear()
    with pytest.raises(Refused) as outdated:
        await approve(alone, "ben", waiting)
    assert outdated.value.reason == "ATTEMPT_OUTDATED"
    ended = await whole(alone, waiting.name)
    assert (ended.state, ended.approval.status) == ("cancelled", "expired")
    assert not alone.ingest.commands


async def test_an_attempt_that_ends_otherwise_asks_nobody_any_more(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    cancel = patcher_pb2.CancelAttemptRequest(name=waiting.name, reason="a test", request_id="c")
    await alone.stub.CancelAttempt(cancel, timeout=5)
    ended = await alone.plane.wait_for_fact("approval_ended")
    assert ended.approval_ended.outcome == "withdrawn"
    await due(alone.ctx, alone.clock.now())
    assert (await whole(alone, waiting.name)).state == "cancelled"


async def test_a_service_cannot_approve(alone: PatcherAlone) -> None:
    waiting = await asked(alone)
    stub = patcher_pb2.ApproveAttemptRequest(name=waiting.name, plan_hash=waiting.approval.plan_hash)
    with pytest.raises(Denied):
        await alone.for_ingest.ApproveAttempt(stub, timeout=5)


async def test_impossible_needs_are_named_and_change_nothing(alone: PatcherAlone) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"multisig_quorum": 0}, "policy.multisig_quorum"),
        ({"multisig_quorum": 3, "multisig_approvers": ["ann", "ben"]}, "policy.multisig_quorum"),
        ({"multisig_roles": ["emperor"]}, "policy.multisig_roles"),
        ({"canary_percentage": 101}, "policy.canary_percentage"),
        ({"approval_timeout": Duration(seconds=1)}, "policy.approval_timeout"),
        ({"max_in_flight": 0}, "policy.max_in_flight"),
    ]
    before = await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5)
    for values, field in cases:
        with pytest.raises(Invalid) as refused:
            await set_policy(alone, **values)
        assert refused.value.field == field
    assert await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5) == before
