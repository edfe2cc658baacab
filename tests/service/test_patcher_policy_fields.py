"""The bounds of the policy through the door: they come back as they were set, and nonsense changes nothing."""

from collections.abc import AsyncIterator

import pytest
from google.protobuf.duration_pb2 import Duration

from deploy.local.testing import BackingServices
from libs.common.errors import Invalid
from libs.common.names import new_id
from prunella.v1 import patcher_pb2
from tests.service.patcher_alone import PatcherAlone


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        yield await patcher.start()
    finally:
        await patcher.stop()


async def update(alone: PatcherAlone, policy: patcher_pb2.Policy, *paths: str) -> patcher_pb2.Policy:
    request = patcher_pb2.UpdatePolicyRequest(policy=policy, request_id=new_id(), reason="a test")
    request.update_mask.paths.extend(paths)
    return (await alone.stub.UpdatePolicy(request, timeout=5)).policy


async def current(alone: PatcherAlone) -> patcher_pb2.Policy:
    return (await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5)).policy


def weekend(zone: str) -> patcher_pb2.FreezeWindow:
    hours = Duration(seconds=62 * 3600)
    return patcher_pb2.FreezeWindow(cron="0 18 * * 5", time_zone=zone, duration=hours, reason="the weekend")


async def test_every_bound_comes_back_as_it_was_set(alone: PatcherAlone) -> None:
    before = await current(alone)
    assert (list(before.multisig_roles), before.max_in_flight, before.max_attempts) == (["approver"], 16, 6)
    wanted = patcher_pb2.Policy(
        multisig_roles=["approver", "admin"],
        multisig_approvers=["bea", "cem", "dan"],
        approval_timeout=Duration(seconds=7200),
        high_impact_plugins=9,
        freeze_windows=[weekend("Europe/Berlin"), weekend("America/New_York")],
        max_in_flight=3,
        max_in_flight_percentage=7.5,
        max_attempts=2,
        attempts_window=Duration(seconds=600),
    )
    paths = [field.name for field, _ in wanted.ListFields()]
    made = await update(alone, wanted, *paths)
    assert made == await current(alone)
    for name in paths:
        assert getattr(made, name) == getattr(wanted, name), name
    assert set((await alone.plane.facts("policy_changed"))[0].policy_changed.fields) == set(paths)


async def test_a_window_or_a_quorum_without_sense_is_named_and_changes_nothing(alone: PatcherAlone) -> None:
    with pytest.raises(Invalid) as window:
        await update(alone, patcher_pb2.Policy(freeze_windows=[weekend("Mars/Olympus")]), "freeze_windows")
    assert window.value.field == "policy.freeze_windows[0].time_zone"
    with pytest.raises(Invalid) as quorum:
        await update(alone, patcher_pb2.Policy(multisig_approvers=["bea"]), "multisig_approvers")
    assert quorum.value.field == "policy.multisig_quorum"
    assert (await current(alone)).version == 1
