"""Texts of requests are cleaned where every one of them enters."""

from __future__ import annotations

import pytest

from libs.common.rpc.request_text import cleaned
from prunella.v1 import agent_pb2, ingest_pb2, notification_pb2, patcher_pb2, queue_pb2

BAD = "a\x00b\x1b[31mc\x07"
PATCHER, QUEUE = "/prunella.v1.PatcherService/", "/prunella.v1.QueueService/"


def test_a_text_of_its_own_loses_what_nobody_can_store_or_print() -> None:
    found = cleaned(
        PATCHER + "EngageKillSwitch", patcher_pb2.EngageKillSwitchRequest(scope=BAD, reason=f"one\n\t{BAD}")
    )
    assert not set("\x00\x1b\x07") & set(found.reason + found.scope)
    assert found.reason.startswith("one\n\ta")


def test_lists_maps_and_messages_within_are_cleaned_too() -> None:
    policy = patcher_pb2.UpdatePolicyRequest(policy=patcher_pb2.Policy(autopatch_merchants=["m1", BAD]), reason="fine")
    assert "\x00" not in cleaned(PATCHER + "UpdatePolicy", policy).policy.autopatch_merchants[1]
    issue = ingest_pb2.ListPluginsRequest(package=BAD)
    assert "\x00" not in cleaned("/prunella.v1.IngestService/ListPlugins", issue).package
    settings = notification_pb2.UpdateNotificationSettingsRequest()
    settings.settings.channels.add(id=BAD)
    assert "\x00" not in cleaned("/prunella.v1.OpsService/UpdateNotificationSettings", settings).settings.channels[0].id
    beat = agent_pb2.Beat(environment={"cms\x00": BAD, "ok": "fine"}, numbers={"n\x00": 1.5})
    wrapped = cleaned("/prunella.v1.Other/Method", agent_pb2.HeartbeatRequest(beat=beat)).beat
    assert not any("\x00" in text for pair in wrapped.environment.items() for text in pair)
    assert wrapped.environment["ok"] == "fine"
    assert sorted(wrapped.numbers.values()) == [1.5]
    assert not any("\x00" in name for name in wrapped.numbers)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (QUEUE + "ReportErrors", queue_pb2.ReportErrorsRequest(source=BAD)),
        (QUEUE + "CompleteTask", queue_pb2.CompleteTaskRequest(method=BAD)),
        (PATCHER + "PublishRelease", patcher_pb2.PublishReleaseRequest(request_id=BAD, artifact=b"\x00\x1b")),
        ("/prunella.v1.AgentGateway/Enroll", agent_pb2.EnrollRequest(token=BAD)),
    ],
)
def test_what_counts_as_it_was_sent_is_left_alone(method: str, request_: object) -> None:
    before = request_.SerializeToString()  # type: ignore[attr-defined]
    assert cleaned(method, request_).SerializeToString() == before


def test_bytes_numbers_and_clean_texts_are_never_touched() -> None:
    request = patcher_pb2.EngageKillSwitchRequest(
        scope="global", reason="line one\nline two\tü 漢 🙂", request_id="k-1"
    )
    before = request.SerializeToString()
    assert cleaned(PATCHER + "EngageKillSwitch", request).SerializeToString() == before
