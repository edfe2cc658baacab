"""Configurations: published once with both signatures, and mended the way a patch goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices
from libs.common.errors import Conflict, Invalid, NotFound, Problem
from libs.common.names import new_id
from prunella.v1 import events_pb2, patcher_pb2
from prunella_agent import configurations, releases
from tests.service.patcher_alone import KEYS, SMOKE, TRACE, PatcherAlone, archive, plugin_of

# Runs with the configuration that is to be proven, and says so.
CONFIGURED = (
    SMOKE
    + """
config = json.load(open(os.environ["PRUNELLA_CONFIG"]))
print(json.dumps({"test": "timeout", "ok": config.get("timeout", 0) > 1, "detail": str(config)}))
print(json.dumps({"test": "knows where it is", "ok": config["sandbox"], "detail": ""}))
"""
)
FIX = {"action": events_pb2.ACTION_CONFIG_FIX, "release": "", "type": "config_drift"}


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start(agent=True)
        await patcher.publish(archive(tmp_path / "release", smoke=CONFIGURED), "1.2.0")
        patcher.report()
        yield patcher
    finally:
        await patcher.stop()


async def refused(alone: PatcherAlone, envelope: bytes, document: bytes) -> Problem:
    request = patcher_pb2.PublishConfigurationRequest(envelope=envelope, document=document)
    with pytest.raises(Problem) as caught:
        await alone.stub.PublishConfiguration(request, timeout=10)
    return caught.value


async def found(alone: PatcherAlone, **filters: Any) -> list[str]:
    request = patcher_pb2.ListConfigurationsRequest(**filters)
    return [one.version for one in (await alone.stub.ListConfigurations(request, timeout=5)).configurations]


async def test_a_configuration_is_published_once_and_told_once(alone: PatcherAlone) -> None:
    first = await alone.configure(b'{"timeout": 5.0}', "7")
    assert (first.name, first.document) == ("packages/checkout/configurations/7", b'{"timeout":5}')
    assert await alone.configure(b'{"timeout": 5}', "7") == first, "the same document again is the same one"
    mine = await alone.configure(b'{"timeout": 9}', "8", plugin="p1")
    assert mine.plugin == "p1"
    told = [event.configuration_published for event in await alone.plane.facts("configuration_published")]
    assert [(one.version, one.plugin, one.digest) for one in told] == [
        ("7", "", first.digest),
        ("8", "p1", mine.digest),
    ]
    request = patcher_pb2.GetConfigurationRequest(name=mine.name)
    assert (await alone.stub.GetConfiguration(request, timeout=5)).configuration == mine
    assert await found(alone) == ["8", "7"]
    assert await found(alone, plugin="plugins/p1") == ["8"]
    assert await found(alone, package="cart") == []
    page = await alone.stub.ListConfigurations(patcher_pb2.ListConfigurationsRequest(page_size=1), timeout=5)
    assert not page.configurations[0].document
    assert await found(alone, page_size=1, page_token=page.next_page_token) == ["7"]


async def test_what_is_not_signed_whole_or_known_otherwise_is_refused_by_name(alone: PatcherAlone) -> None:
    given = configurations.describe(b'{"a": 1}', package="checkout", version="7")
    envelope = configurations.sign(given, KEYS)
    one_key = await refused(alone, configurations.sign(given, KEYS[:1]), b'{"a": 1}')
    assert (type(one_key), one_key.reason, one_key.field) == (Invalid, "SIGNATURE_MISSING", "envelope")
    other = await refused(alone, envelope, b'{"a": 2}')
    assert (other.reason, other.field) == ("DIGEST_MISMATCH", "document")
    large = await refused(alone, envelope, b'{"a": "' + b"x" * 256 * 1024 + b'"}')
    assert (large.reason, large.field) == ("CONFIG_TOO_LARGE", "document")
    assert (await refused(alone, envelope, b"[]")).reason == "CONFIG_MALFORMED"
    release = releases.sign(releases.describe(b"x", package="checkout", version="7"), KEYS)
    assert (await refused(alone, release, b"{}")).reason == "ENVELOPE_MALFORMED"
    assert await found(alone) == []
    await alone.configure(b'{"a": 1}', "7")
    taken = configurations.sign(configurations.describe(b'{"a": 2}', package="checkout", version="7"), KEYS)
    assert isinstance(await refused(alone, taken, b'{"a": 2}'), Conflict)
    for name, kind in (("packages/checkout/configurations/8", NotFound), ("configurations/7", Invalid)):
        with pytest.raises(kind):
            await alone.stub.GetConfiguration(patcher_pb2.GetConfigurationRequest(name=name), timeout=5)


async def test_a_config_fix_is_staged_applied_watched_and_kept_once(alone: PatcherAlone) -> None:
    good = await alone.configure(b'{"timeout": 5}', "7")
    _, event = await alone.decide(**FIX | {"release": "7"})
    consumer = next(part for part in alone.plane.services["patcher"].parts if hasattr(part, "handle"))
    await asyncio.gather(*(consumer.handle(event, TRACE, redelivered=True) for _ in range(2)))
    attempt = await alone.attempt("success")
    assert (attempt.configuration, attempt.to_release, attempt.staging.tests_run) == ("7", "1.2.0", 4)
    command = await alone.command("config_update")
    assert (command.digest, command.config, command.release) == (good.digest, good.document, "1.2.0")
    configurations.verify(command.envelope, command.config, alone.ctx.keys)
    (ended,) = await alone.plane.facts("attempt_succeeded")
    assert ended.attempt_succeeded.to_release == "7"
    assert alone.ingest.plugins["p1"].config_digest == good.digest
    assert len(await alone.plane.sql("SELECT 1 FROM patcher.attempts")) == 1


async def test_a_configuration_that_fails_its_tests_never_comes_near_a_plugin(alone: PatcherAlone) -> None:
    await alone.configure(b'{"timeout": 0.5}', "7")
    await alone.decide(**FIX | {"release": "7"})
    attempt = await alone.attempt("failed")
    assert "timeout" in attempt.reason
    assert alone.ingest.commands == []
    # Another document is another proof, though the release is the same.
    await alone.configure(b'{"timeout": 6}', "8")
    await alone.decide(**FIX | {"release": "8"})
    assert not (await alone.attempt("success")).staging.cached


async def test_a_configuration_under_which_the_plugin_gets_worse_is_taken_back(alone: PatcherAlone) -> None:
    alone.report(attempts=30, failures=25)
    await alone.configure(b'{"timeout": 5}', "7")
    await alone.decide(**FIX | {"release": "7", "type": "webhook_fail_rate"})
    attempt = await alone.attempt("rolled_back")
    assert attempt.verdict.result == "fail"
    (back,) = await alone.plane.facts("attempt_rolled_back")
    assert back.attempt_rolled_back.to_release == "7", "the next round goes without it"


async def test_without_a_version_it_is_what_the_plugin_should_have(alone: PatcherAlone) -> None:
    had = await alone.configure(b'{"timeout": 5}', "7")
    await alone.configure(b'{"timeout": 9}', "8")
    alone.ingest.plugins["p1"] = plugin_of("p1", expected_config_digest=had.digest, config_digest="f" * 64)
    await alone.decide(**FIX)
    assert (await alone.attempt("success")).configuration == "7", "and not the newest, which nobody brought there"
    alone.ingest.plugins["p2"] = plugin_of("p2")
    await alone.decide(**FIX | {"plugin": "p2"})
    assert (await alone.attempt("success", plugin="p2")).configuration == "8", "nothing is expected: the newest"


@pytest.mark.parametrize(
    ("version", "failure"),
    [("9", "configuration_unknown"), ("mine", "configuration_unknown"), ("7", "configuration_in_force")],
)
async def test_what_cannot_be_brought_fails_with_its_reason(alone: PatcherAlone, version: str, failure: str) -> None:
    known = await alone.configure(b'{"timeout": 5}', "7")
    await alone.configure(b'{"timeout": 6}', "mine", plugin="p9")
    alone.ingest.plugins["p1"] = plugin_of("p1", config_digest=known.digest)
    await alone.decide(**FIX | {"release": version})
    await alone.attempt("failed")
    (told,) = await alone.plane.facts("attempt_failed")
    assert (told.attempt_failed.failure, told.attempt_failed.to_release) == (failure, version)


async def test_an_agent_that_cannot_change_configurations_is_left_alone(alone: PatcherAlone) -> None:
    await alone.configure(b'{"timeout": 5}', "7")
    plugin = plugin_of("p1")
    plugin.capabilities.remove("config_update")
    alone.ingest.plugins["p1"] = plugin
    await alone.decide(incident=new_id(), **FIX)
    attempt = await alone.attempt("refused")
    assert "config_update" in attempt.reason
