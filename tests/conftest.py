"""Servers for the whole run, and a ground of its own for each test that wants one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from deploy.local import ports
from deploy.local.servers import start_servers
from deploy.local.testing import BackingServices, Plane, Servers

# How long an example takes says more about the machine than about the code. New examples are sought where somebody can
# follow them up; what is checked before it lands is checked with the same ones each time.
settings.register_profile("prunella", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("prunella")

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    ports.SHARE = slice(int(worker.removeprefix("gw")), None, int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[Servers]:
    """PostgreSQL (and a NATS that nobody needs) for the whole run; unsynced, since nothing outlives it."""
    folder = Path(tempfile.mkdtemp(prefix="prunella-tests-"))
    started = await start_servers(folder, durable=False)
    yield started
    await started.discard()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def backing(servers: Servers) -> AsyncIterator[BackingServices]:
    """A migrated, empty database and a NATS of its own."""
    made = await BackingServices.make(servers)
    yield made
    await made.discard()


@pytest.fixture
async def plane(backing: BackingServices) -> AsyncIterator[Plane]:
    """All five services, with beats each second."""
    started = Plane(backing, environ={"INGEST_BEAT_SECONDS": "1"})
    try:
        yield await started.start()
    finally:
        await started.stop()
