"""What people ask of the patcher: releases, policy, kill switches, lists. Bad input changes nothing and says why."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from deploy.local.testing import BackingServices
from libs.common.errors import Conflict, Denied, Invalid, NotFound, Refused, Stale
from libs.common.names import new_id
from libs.common.settings import BadSettings, load
from prunella.v1 import events_pb2, patcher_pb2, patcher_pb2_grpc
from prunella_agent.releases import describe, generate_key, sign
from services.patcher.context import Settings, pinned_keys
from tests.service.patcher_alone import KEYS, PatcherAlone, archive


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return archive(tmp_path_factory.mktemp("release") / "r")


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        yield await patcher.start()
    finally:
        await patcher.stop()


async def publish(alone: PatcherAlone, envelope: bytes, artifact: bytes) -> Any:
    request = patcher_pb2.PublishReleaseRequest(request_id=new_id(), envelope=envelope, artifact=artifact)
    return await alone.stub.PublishRelease(request, timeout=10)


def envelope(artifact: bytes, keys: list[bytes] = KEYS, version: str = "1.2.3") -> bytes:
    return sign(describe(artifact, package="checkout", version=version), keys)


class TestReleases:
    """Published once, verified, never changed."""

    async def test_what_is_published_can_be_read_listed_and_fetched_whole(
        self, alone: PatcherAlone, artifact: bytes
    ) -> None:
        made = await alone.publish(artifact)
        request = patcher_pb2.GetReleaseRequest(name=made.name)
        assert (await alone.stub.GetRelease(request, timeout=5)).release == made
        listed = await alone.stub.ListReleases(patcher_pb2.ListReleasesRequest(package="checkout"), timeout=5)
        assert [release.name for release in listed.releases] == ["packages/checkout/releases/1.2.3"]
        assert await self.fetch(alone, made.digest) == artifact
        assert await self.fetch(alone, made.digest, 100) == artifact[100:]
        assert len(await alone.plane.facts("release_published")) == 1

    async def fetch(self, alone: PatcherAlone, digest: str, offset: int = 0) -> bytes:
        request = patcher_pb2.FetchReleaseRequest(digest=digest, offset=offset)
        return b"".join([piece.chunk async for piece in alone.for_ingest.FetchRelease(request, timeout=10)])

    async def test_publishing_the_same_again_is_the_same_and_another_under_its_version_is_refused(
        self, alone: PatcherAlone, artifact: bytes, tmp_path: Path
    ) -> None:
        first = await alone.publish(artifact)
        assert await alone.publish(artifact) == first
        other = archive(tmp_path / "other", main="print('other')")
        with pytest.raises(Conflict) as taken:
            await alone.publish(other)
        assert taken.value.reason == "VERSION_PUBLISHED"
        with pytest.raises(Conflict) as again:
            await alone.publish(artifact, version="1.2.4")
        assert again.value.reason == "ARTIFACT_PUBLISHED"
        assert len(await alone.plane.facts("release_published")) == 1

    async def test_a_release_needs_both_keys_and_the_very_bytes_that_were_signed(
        self, alone: PatcherAlone, artifact: bytes
    ) -> None:
        good, one, twice = envelope(artifact), envelope(artifact, KEYS[:1]), envelope(artifact, [KEYS[0], KEYS[0]])
        altered = bytes([*artifact[:-1], artifact[-1] ^ 1])
        forged = json.dumps(json.loads(good) | {"payload": "e30="}).encode()
        stranger = generate_key()[0]
        cases = {
            "SIGNATURE_MISSING": [(one, artifact), (envelope(artifact, [KEYS[0], stranger]), artifact),
                                  (twice, artifact), (forged, artifact)],
            "DIGEST_MISMATCH": [(good, altered)],
            "SIZE_MISMATCH": [(good, artifact + b"x"), (good, b"")],
            "ENVELOPE_MALFORMED": [(b"", artifact), (b"{}", artifact), (b"\xff", artifact)],
        }  # fmt: skip
        for reason, tries in cases.items():
            for text, data in tries:
                with pytest.raises(Invalid) as refused:
                    await publish(alone, text, data)
                assert refused.value.reason == reason
                assert refused.value.field in {"envelope", "artifact"}
        assert not await alone.plane.sql("SELECT 1 FROM patcher.releases")
        assert not await alone.plane.facts("release_published")

    async def test_bytes_that_are_no_archive_are_refused_even_when_signed(self, alone: PatcherAlone) -> None:
        with pytest.raises(Invalid) as refused:
            await publish(alone, envelope(b"not an archive"), b"not an archive")
        assert (refused.value.reason, refused.value.field) == ("ARTIFACT_MALFORMED", "artifact")

    async def test_an_artifact_that_was_altered_in_the_database_fails_staging(
        self, alone: PatcherAlone, artifact: bytes
    ) -> None:
        await alone.publish(artifact)
        databases = alone.ctx.database
        await databases.transaction(
            lambda tx: tx.run("UPDATE patcher.releases SET artifact = set_byte(artifact, 30, 7)")
        )
        await alone.decide()
        failed = (await alone.plane.wait_for_fact("attempt_failed")).attempt_failed
        assert failed.failure == "staging_failed"
        assert not alone.ingest.commands

    async def test_unknown_releases_are_named(self, alone: PatcherAlone) -> None:
        with pytest.raises(NotFound, match=r"9\.9\.9 of package checkout"):
            name = "packages/checkout/releases/9.9.9"
            await alone.stub.GetRelease(patcher_pb2.GetReleaseRequest(name=name), timeout=5)
        with pytest.raises(Invalid):
            await alone.stub.GetRelease(patcher_pb2.GetReleaseRequest(name="checkout"), timeout=5)
        with pytest.raises(NotFound):
            await self.fetch(alone, "0" * 64)


class TestThePolicy:
    """Every field can be changed, with a reason; nothing else can."""

    async def update(self, alone: PatcherAlone, paths: list[str], **values: Any) -> patcher_pb2.Policy:
        policy = patcher_pb2.Policy(**values)
        request = patcher_pb2.UpdatePolicyRequest(policy=policy, request_id=new_id(), reason="a test")
        request.update_mask.paths.extend(paths)
        return (await alone.stub.UpdatePolicy(request, timeout=5)).policy

    async def test_a_change_is_told_with_its_fields_and_raises_the_version(self, alone: PatcherAlone) -> None:
        before = (await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5)).policy
        assert (before.version, before.min_confidence, before.autopatch_max_severity) == (1, 0.75, 2)
        assert before.staging_timeout.seconds == 300
        after = await self.update(
            alone, ["min_confidence", "autopatch_merchants", "learning_enabled"], min_confidence=0.9,
            autopatch_merchants=["m1"], learning_enabled=True,
        )  # fmt: skip
        assert (after.version, after.min_confidence, list(after.autopatch_merchants)) == (2, 0.9, ["m1"])
        told = await alone.plane.facts("policy_changed")
        assert list(told[0].policy_changed.fields) == ["autopatch_merchants", "min_confidence"]
        assert [(c.before, c.after) for c in told[0].policy_changed.changes] == [("[]", '["m1"]'), ("0.75", "0.9")]
        assert (told[0].actor, told[0].reason) == ("operators/local", "a test")

    @pytest.mark.parametrize(
        ("paths", "values"),
        [
            ([], {}),
            (["version"], {"version": 9}),
            (["nonsense"], {}),
            (["min_confidence"], {"min_confidence": 2.0}),
            (["min_confidence"], {"min_confidence": float("nan")}),
            (["autopatch_max_severity"], {}),
            (["staging_timeout"], {}),
        ],
    )
    async def test_bad_values_are_refused_and_change_nothing(
        self, alone: PatcherAlone, paths: list[str], values: dict[str, Any]
    ) -> None:
        with pytest.raises(Invalid) as refused:
            await self.update(alone, paths, **values)
        assert refused.value.reason == "POLICY_FIELD"
        assert (await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5)).policy.version == 1

    async def test_who_read_an_older_policy_does_not_overwrite_a_newer_one(self, alone: PatcherAlone) -> None:
        await self.update(alone, ["min_confidence"], min_confidence=0.8)
        with pytest.raises(Stale):
            await self.update(alone, ["min_confidence"], min_confidence=0.7, etag="1")

    async def test_a_change_needs_a_reason(self, alone: PatcherAlone) -> None:
        request = patcher_pb2.UpdatePolicyRequest(policy=patcher_pb2.Policy(min_confidence=0.9), request_id=new_id())
        request.update_mask.paths.append("min_confidence")
        with pytest.raises(Invalid) as refused:
            await alone.stub.UpdatePolicy(request, timeout=5)
        assert refused.value.field == "reason"


class TestKillSwitches:
    """Engaged by scope, listed, idempotent."""

    async def engage(self, alone: PatcherAlone, scope: str, reason: str = "a test", request_id: str = "") -> Any:
        request = patcher_pb2.EngageKillSwitchRequest(scope=scope, reason=reason, request_id=request_id or new_id())
        return (await alone.stub.EngageKillSwitch(request, timeout=10)).kill_switch

    async def test_the_epoch_rises_with_each_change_and_a_repeat_changes_nothing(self, alone: PatcherAlone) -> None:
        counted = [self.counted(change) for change in ("engaged", "released")]
        first = await self.engage(alone, "global", request_id="r1")
        assert await self.engage(alone, "global", request_id="r1") == first
        assert (await self.engage(alone, "global")).epoch == 2, "whoever engages it once more has an engagement too"
        released = (await alone.release_switch("global")).kill_switch
        assert (released.engaged, released.epoch) == (False, 3)
        told = [
            event.WhichOneof("fact") for event in await alone.plane.facts("kill_switch_engaged", "kill_switch_released")
        ]
        assert told == ["kill_switch_engaged", "kill_switch_engaged", "kill_switch_released"]
        listed = await alone.stub.ListKillSwitches(patcher_pb2.ListKillSwitchesRequest(), timeout=5)
        assert [(switch.scope, switch.engaged) for switch in listed.kill_switches] == [("global", False)]
        engaged, freed = counted
        assert [self.counted(change) for change in ("engaged", "released")] == [engaged + 2, freed + 1]

    def counted(self, change: str) -> float:
        labels = {"scope": "global", "change": change}
        return REGISTRY.get_sample_value("prunella_kill_switch_changes_total", labels) or 0.0

    async def test_requests_without_an_id_are_no_repeats_of_one_another(self, alone: PatcherAlone) -> None:
        engage = patcher_pb2.EngageKillSwitchRequest(scope="global", reason="a test")
        release = patcher_pb2.ReleaseKillSwitchRequest(scope="global", reason="over", epoch=1)
        assert (await alone.stub.EngageKillSwitch(engage, timeout=10)).kill_switch.engaged
        assert not (await alone.stub.ReleaseKillSwitch(release, timeout=10)).kill_switch.engaged
        assert (await alone.stub.EngageKillSwitch(engage, timeout=10)).kill_switch.engaged

    @pytest.mark.parametrize("scope", ["", "everything", "plugins/", "actions/dance", "merchants/../x", "global/x"])
    async def test_a_scope_that_is_none_is_refused(self, alone: PatcherAlone, scope: str) -> None:
        with pytest.raises(Invalid) as refused:
            await self.engage(alone, scope)
        assert refused.value.field == "scope"

    async def test_it_needs_a_reason(self, alone: PatcherAlone) -> None:
        with pytest.raises(Invalid):
            await self.engage(alone, "global", reason="  ")


async def test_attempts_are_listed_in_pages_and_filters_are_checked(alone: PatcherAlone) -> None:
    for number in range(3):
        await alone.decide(plugin=f"p{number}", severity=events_pb2.SEVERITY_CRITICAL)
    await alone.plane.wait_for_fact("attempt_refused", times=3)
    seen, token = [], ""
    for _ in range(3):
        request = patcher_pb2.ListAttemptsRequest(page_size=1, page_token=token, state="refused")
        page = await alone.stub.ListAttempts(request, timeout=5)
        seen += [attempt.plugin for attempt in page.attempts]
        token = page.next_page_token
    assert (sorted(seen), token) == (["p0", "p1", "p2"], "")
    with pytest.raises(Invalid):
        await alone.stub.ListAttempts(patcher_pb2.ListAttemptsRequest(state="dancing"), timeout=5)
    with pytest.raises(NotFound):
        await alone.stub.GetAttempt(patcher_pb2.GetAttemptRequest(name=f"attempts/{new_id()}"), timeout=5)


async def test_services_may_not_do_what_people_do(alone: PatcherAlone) -> None:
    stub: Any = patcher_pb2_grpc.PatcherServiceStub(alone.plane.channel("patcher", "decider"))
    with pytest.raises(Denied):
        await stub.EngageKillSwitch(patcher_pb2.EngageKillSwitchRequest(scope="global", reason="x"), timeout=5)
    with pytest.raises(Denied):
        await stub.PublishRelease(patcher_pb2.PublishReleaseRequest(), timeout=5)


async def test_without_pinned_keys_nothing_is_published(backing: BackingServices, artifact: bytes) -> None:
    alone = PatcherAlone(backing, environ={"PATCHER_RELEASE_KEYS": ""})
    try:
        await alone.start()
        with pytest.raises(Refused) as refused:
            await alone.publish(artifact)
        assert refused.value.reason == "KEYS_NOT_PINNED"
    finally:
        await alone.stop()


@pytest.mark.parametrize(
    "text", ["00", "zz,yy", "00" * 32, ",".join(["00" * 32] * 2), ",".join(["00" * 31, "11" * 31])]
)
def test_release_keys_that_are_not_two_different_keys_stop_the_start(text: str) -> None:
    with pytest.raises(Invalid, match="PATCHER_RELEASE_KEYS"):
        pinned_keys(text)


def test_settings_that_make_no_sense_are_all_named_at_once() -> None:
    with pytest.raises(BadSettings) as wrong:
        load(
            Settings,
            {"PATCHER_DEAD_MAN_SECONDS": "1", "PATCHER_PROBATION_BEATS": "none", "STAGING_RUNNER_URL": "ftp://x"},
        )
    for name in ("DATABASE_URL", "PATCHER_DEAD_MAN_SECONDS", "PATCHER_PROBATION_BEATS", "STAGING_RUNNER_URL"):
        assert name in wrong.value.message
