"""A label belongs to one plugin that is not retired; a token that replaces is for the one that has it now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from deploy.local.testing import Servers
from libs.common.errors import Conflict, Invalid
from libs.common.names import new_id
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import ingest_pb2
from tests.service.ingest_alone import Alone


@pytest.fixture(scope="module")
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


async def token(alone: Alone, label: str, *, caller: str = "", **values: Any) -> str:
    fields = {"merchant": "acme", "package": "relay", "label": label, "request_id": new_id()} | values
    request = ingest_pb2.CreateEnrollmentTokenRequest(**fields)
    return (await alone.ask(caller or "operator").CreateEnrollmentToken(request)).token


async def joined(alone: Alone, given: str) -> str:
    request = pb.EnrollRequest(token=given, enrollment_key=new_id(), release="1.2.0")
    return (await alone.gateway.Enroll(request)).plugin


async def state(alone: Alone, plugin: str) -> str:
    return (await alone.ask().GetPlugin(ingest_pb2.GetPluginRequest(name=f"plugins/{plugin}"))).plugin.state


async def retire(alone: Alone, plugin: str) -> None:
    request = ingest_pb2.RetirePluginRequest(name=f"plugins/{plugin}", reason="sold", request_id=new_id())
    await alone.ask().RetirePlugin(request)


async def test_a_label_of_a_retired_plugin_is_free(alone: Alone) -> None:
    first = await joined(alone, await token(alone, "pos-17"))
    with pytest.raises(Conflict) as taken:
        await token(alone, "pos-17")
    assert (taken.value.reason, taken.value.field) == ("LABEL_TAKEN", "label")
    assert "--replace" in taken.value.message
    await retire(alone, first)
    second = await joined(alone, await token(alone, "pos-17"))
    named = (await alone.ask().GetPlugin(ingest_pb2.GetPluginRequest(name="plugins/pos-17"))).plugin
    assert named.name == f"plugins/{second}"


async def test_one_plugin_comes_in_the_place_of_another(alone: Alone) -> None:
    first = await joined(alone, await token(alone, "pos-18"))
    given = await token(alone, "pos-18", replace=True, merchant="")
    assert await state(alone, first) == "active", "a token alone changes nothing"
    second = await joined(alone, given)
    assert (await state(alone, first), await state(alone, second)) == ("retired", "active")
    (retired,) = await alone.plane.facts("plugin_retired", plugin=first)
    (enrolled,) = await alone.plane.facts("plugin_enrolled", plugin=second)
    assert retired.plugin_retired.replaced_by == f"plugins/{second}"
    assert enrolled.plugin_enrolled.replaces == f"plugins/{first}"


async def test_a_replacing_token_retires_only_whom_it_was_made_for(alone: Alone) -> None:
    first = await joined(alone, await token(alone, "pos-19"))
    early, late = [await token(alone, "pos-19", replace=True) for _ in range(2)]
    second = await joined(alone, early)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await joined(alone, late)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert (await state(alone, first), await state(alone, second)) == ("retired", "active")


async def test_what_is_to_be_replaced_must_be_named_and_stays_at_its_merchant(alone: Alone) -> None:
    await joined(alone, await token(alone, "pos-20"))
    for values, reason in (
        ({"label": "", "replace": True}, "FIELD_MISSING"),
        ({"label": "pos-20", "replace": True, "merchant": "other"}, "MERCHANT_DIFFERS"),
        ({"label": "pos-21", "merchant": ""}, "FIELD_MISSING"),
    ):
        with pytest.raises(Invalid) as refused:
            await token(alone, **values)  # type: ignore[arg-type]
        assert refused.value.reason == reason


async def test_an_agent_never_chooses_its_merchant(alone: Alone) -> None:
    request = pb.EnrollRequest(
        token=await token(alone, "pos-22"), enrollment_key=new_id(), release="1.2.0", merchant="another"
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await alone.gateway.Enroll(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_same_request_gets_the_same_token_and_any_other_gets_another(alone: Alone) -> None:
    request = new_id()
    first = await token(alone, "pos-23", request_id=request)
    assert await token(alone, "pos-23", request_id=request) == first
    assert await token(alone, "pos-24") != first
    rows = await alone.plane.sql("SELECT encode(answer, 'hex') AS answer FROM ingest.requests WHERE answer IS NOT NULL")
    assert rows and not any(first.encode().hex() in row.answer for row in rows), "no secret is kept"
