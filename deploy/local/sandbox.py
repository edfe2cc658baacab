"""What the sandbox of a plane on this machine can give, said at its start, and a policy that it can keep.

Rule: a machine that gives less than the policy asks for would refuse every patch. Where nobody has set `min_isolation`
and the database is the plane's own, the policy is set to what there is, as a change like any other, and a sentence says
so. What a person has set is never touched.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from libs.common import rpc
from libs.common.errors import Problem
from libs.common.names import new_id
from prunella.v1 import patcher_pb2, patcher_pb2_grpc

SANDBOX = "services.patcher.staging.sandbox"
SECONDS = 30.0
LEVELS = ("none", "user", "namespaces")
FIELD = "min_isolation"
MOST_CHANGES = 100


@functools.cache
def probe() -> dict[str, Any]:
    """What a sandbox on this machine gives (isolation, missing and more), without a plane; found out once."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": folder}
        command = [sys.executable, "-m", SANDBOX, "--probe"]
        done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, timeout=SECONDS, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def fit(address: str, key: str, say: Callable[[str], None], *, may_lower: bool) -> None:
    """Says what the sandbox gives; lowers the policy's bound to it when that may be and nobody set another."""
    channel = rpc.channel(address, caller="operator", key=key, operator="prunella-up")
    try:
        patcher: patcher_pb2_grpc.PatcherServiceAsyncStub = patcher_pb2_grpc.PatcherServiceStub(channel)
        answer = await patcher.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=SECONDS)
        gives, asks, found = answer.sandbox.isolation, answer.policy.min_isolation, answer.sandbox
        if not found.missing:
            say(f"sandbox    isolation {word(gives)}: a separate user, no network, files of its own")
            return
        lacks = f"isolation {word(gives)}: it lacks {', '.join(found.missing)}"
        if gives >= asks:
            say(f"sandbox    {lacks}; the policy asks for {word(asks)}")
        elif may_lower and not await _was_set(patcher):
            await _lower(patcher, gives)
            say(f"sandbox    {lacks}. Releases are tried all the same:")
            say(f"           the policy's {FIELD} is {word(gives)} here, not {word(asks)}. For more:")
            say(f"           {found.remedy.rstrip(',')}")
        else:
            say(f"sandbox    {lacks}, and the policy asks for {word(asks)}: whatever needs staging is refused.")
            say(f"           {found.remedy} or type: prunella policy set {FIELD}={word(gives)}")
    except Problem as problem:
        say(f"sandbox    not known: {problem.message}")
    finally:
        await channel.close()


async def _was_set(patcher: patcher_pb2_grpc.PatcherServiceAsyncStub) -> bool:
    request = patcher_pb2.ListPolicyChangesRequest(page_size=MOST_CHANGES)
    while True:
        page = await patcher.ListPolicyChanges(request, timeout=SECONDS)
        if any(field.field == FIELD for change in page.changes for field in change.fields):
            return True
        if not page.next_page_token:
            return False
        request.page_token = page.next_page_token


async def _lower(patcher: patcher_pb2_grpc.PatcherServiceAsyncStub, level: patcher_pb2.Isolation.ValueType) -> None:
    request = patcher_pb2.UpdatePolicyRequest(
        policy=patcher_pb2.Policy(min_isolation=level),
        update_mask=FieldMask(paths=[FIELD]),
        request_id=new_id(),
        reason="this machine gives no more to a sandbox",
    )
    await patcher.UpdatePolicy(request, timeout=SECONDS)


def word(level: patcher_pb2.Isolation.ValueType) -> str:
    """A level as people read it."""
    return patcher_pb2.Isolation.Name(level).removeprefix("ISOLATION_").lower()
