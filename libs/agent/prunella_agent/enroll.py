"""Exchanges a one-time token for an identity.

Rule: the same enrolment key gets the same plugin, so a lost answer is simply asked for again; a token that is unknown,
used by somebody else or too old is raised at once and never tried again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import grpc
import grpc.aio

from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc
from prunella_agent.clock import Clock, SystemClock
from prunella_agent.credential import Credential

CALL_SECONDS = 10.0
PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)


async def enroll(
    channel: grpc.aio.Channel,
    *,
    token: str,
    enrollment_key: str,
    package: str,
    release: str,
    merchant: str = "",
    environment: Mapping[str, str] | None = None,
    tries: int = 60,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> Credential:
    """The identity for a token; waits for a plane that is not there yet. Raises grpc.RpcError when it says no."""
    clock, rng = clock or SystemClock(), rng or random.Random()  # noqa: S311 - jitter, not secrets
    request = pb.EnrollRequest(
        token=token,
        enrollment_key=enrollment_key,
        package=package,
        release=release,
        merchant=merchant,
        environment=dict(environment or {}),
    )
    stub = agent_pb2_grpc.AgentGatewayStub(channel)
    for attempt in range(1, tries + 1):
        try:
            answer = await stub.Enroll(request, timeout=CALL_SECONDS)
            return Credential(answer.plugin, answer.secret, tuple(answer.release_keys))
        except grpc.aio.AioRpcError as error:
            if error.code() not in PASSING or attempt == tries:
                raise
        await clock.sleep(rng.uniform(0, min(30.0, 2.0 ** min(attempt, 5))))
    raise ValueError("tries must be at least 1")
