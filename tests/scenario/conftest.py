"""A plane in this process that knows the demo's package: its playbook and its signed releases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.demo import releases
from deploy.local.testing import BackingServices, Plane
from prunella.v1 import patcher_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def relay_plane(backing: BackingServices) -> AsyncIterator[Plane]:
    """All five services with the demo's playbook, and relay 1.2.0 and 1.2.3 published."""
    keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    public = ",".join(key.public_key().public_bytes_raw().hex() for key in keys)
    environ = {
        "INGEST_BEAT_SECONDS": "1",
        # Every agent here falls ill on purpose; that is no storm.
        "INGEST_STORM_LEAST": "1000000",
        "DECIDER_PLAYBOOK": str(ROOT / "deploy/demo/playbook.toml"),
        "PATCHER_RELEASE_KEYS": public,
        "INGEST_RELEASE_KEYS": public,
    }
    plane = Plane(backing, environ=environ)
    try:
        await plane.start()
        patcher: Any = patcher_pb2_grpc.PatcherServiceStub(plane.channel("patcher"))
        await releases.publish(patcher, [key.private_bytes_raw() for key in keys], ("1.2.0", "1.2.3"))
        yield plane
    finally:
        await plane.stop()
