"""The bytes of an artifact, fetched from the plane.

Rule: a fetch that breaks goes on where it left off, at most five times, each within a minute; more bytes than were
announced are never taken. What the bytes are worth is for the caller to verify.
"""

from __future__ import annotations

import random

import grpc

from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc
from prunella_agent.clock import Clock
from prunella_agent.credential import Credential

FETCH_SECONDS = 60.0
FETCH_TRIES = 5
PAUSE_SECONDS = 1.0


async def fetch(
    stub: agent_pb2_grpc.AgentGatewayAsyncStub, credential: Credential, clock: Clock, digest: str, size: int
) -> bytes:
    """At most `size` bytes, and a chunk. Raises grpc.RpcError when the plane refuses or stays away."""
    received = bytearray()
    for attempt in range(1, FETCH_TRIES + 1):
        request = pb.FetchArtifactRequest(digest=digest, offset=len(received))
        try:
            call = stub.FetchArtifact(request, metadata=credential.metadata(), timeout=FETCH_SECONDS)
            async for piece in call:
                received += piece.chunk
                if len(received) > size:
                    call.cancel()
                    break
            return bytes(received)
        except grpc.RpcError as error:
            if attempt == FETCH_TRIES or error.code() not in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            ):
                raise
        await clock.sleep(random.uniform(0, PAUSE_SECONDS * attempt))  # noqa: S311 - spreads load, guards nothing
    return bytes(received)
