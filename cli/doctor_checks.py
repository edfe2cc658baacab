"""What `prunella doctor` looks at: one function per check, each with its sentence and the line to type.

Rule: a check never changes anything and never takes longer than a few seconds. What cannot be looked at because
something before it is missing is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.formatting import byte_size, duration
from cli.plane_client import SERVICES, PlaneClient
from deploy.local.installation import HERE, INSTALL, IS_CHECKOUT, START

OLDEST = (3, 11)
ROOM = 1 << 30  # bytes of disk below which PostgreSQL soon stops
OFFSET = 1.0  # seconds a clock may differ from the database's
STALE = 10.0  # seconds a fact may wait for the bus
STREAMS = ("HEAL", "DEAD")
TIMEOUT = 5.0


@dataclass(frozen=True)
class Finding:
    """What a check found. `ok` is None when it could not be looked at."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def checked(name: str, ok: bool, detail: str, remedy: str) -> Finding:
    """What was looked at; what is well needs no remedy."""
    return Finding(name, ok, detail, "" if ok else remedy)


@dataclass
class CheckTarget:
    """What the checks look at: this checkout or environment, and its plane when one runs."""

    environ: Mapping[str, str]
    plane: PlaneClient | None = None
    plane_file: Mapping[str, Any] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        """The owner's address of the database, empty when unknown."""
        return str(self.plane_file.get("database_url") or self.environ.get("DATABASE_URL", ""))

    @property
    def nats_url(self) -> str:
        """The address of NATS, empty when unknown."""
        return str(self.plane_file.get("nats_url") or self.environ.get("NATS_URL", ""))


Check = Callable[[CheckTarget], Awaitable[list[Finding]]]


async def python(_target: CheckTarget) -> list[Finding]:
    """The interpreter, its environment and the generated protos."""
    version = ".".join(map(str, sys.version_info[:3]))
    fresh = sys.version_info[:2] >= OLDEST
    found = [checked("python", fresh, f"{version} ({sys.executable})", "install Python 3.11 or newer")]
    isolated = sys.prefix != sys.base_prefix
    detail = sys.prefix if isolated else "not in an environment of its own"
    remedy = "make run" if IS_CHECKOUT else "python3 -m venv DIRECTORY, and install there"
    found.append(checked("environment", isolated, detail, remedy))
    modules = [importlib.util.find_spec(f"prunella.v1.{name}_pb2") for name in ("agent", "ops")]
    generated = all(modules)
    remedy = "python protos/generate.py" if IS_CHECKOUT else INSTALL
    return [*found, checked("protos", generated, "generated" if generated else "not generated", remedy)]


async def programs(target: CheckTarget) -> list[Finding]:
    """PostgreSQL and NATS to start, unless servers elsewhere are named."""
    from deploy.local import binaries

    found = []
    for name, variable, find in (
        ("postgresql program", "DATABASE_URL", binaries.postgres),
        ("nats program", "NATS_URL", binaries.nats),
    ):
        if target.environ.get(variable):
            found.append(Finding(name, True, f"not needed, {variable} names a server"))
            continue
        try:
            found.append(Finding(name, True, str(await asyncio.to_thread(find, target.environ))))
        except binaries.NotInstalled as missing:
            found.append(Finding(name, False, str(missing), INSTALL))
    return found


async def folder(target: CheckTarget) -> list[Finding]:
    """The state folder: room on its disk, and nobody else reads its secrets."""
    from deploy.local import state

    place = state.locate(target.environ).folder
    free = shutil.disk_usage(place).free
    found = [checked("disk", free >= ROOM, f"{byte_size(free)} free for {place}", f"make room on {place}")]
    secret = [path for path in (place / "kept.json", place / "plane.json") if path.exists()]
    open_ = [path for path in secret if path.stat().st_mode & 0o077 or path.stat().st_uid != os.geteuid()]
    if open_:
        remedy = f"chmod 600 {' '.join(map(str, open_))}"
        return [*found, Finding("keys", False, "others may read the plane's keys", remedy)]
    return [*found, Finding("keys", True, f"only you read them ({len(secret)} files)" if secret else "none made yet")]


async def running(target: CheckTarget) -> list[Finding]:
    """Whether there is a plane, and whether loopback ports can be had when there is none."""
    if target.plane is not None:
        by = target.plane_file.get("supervisor")
        detail = f"process {by}" if by else "named by PRUNELLA_*_ADDRESS"
        return [Finding("plane", True, detail)]
    from deploy.local.ports import free_ports

    try:
        free_ports(len(SERVICES))
        ports = Finding("ports", True, "loopback ports are free")
    except OSError as error:
        ports = Finding("ports", False, f"no loopback port can be had: {error}", "ip link set lo up")
    return [ports, Finding("plane", False, f"none runs for {HERE}", START)]


async def services(target: CheckTarget) -> list[Finding]:
    """Each of the five services says SERVING."""
    from cli.status import health

    plane = target.plane
    if plane is None:
        return [Finding("services", None, "no plane to ask")]
    statuses = await asyncio.gather(*(health(plane, name) for name in SERVICES))
    return [
        checked(
            name, status == "serving", f"{status} at {plane.addresses.get(name) or 'no address'}", _log(target, name)
        )
        for name, status in zip(SERVICES, statuses, strict=True)
    ]


async def staging(target: CheckTarget) -> list[Finding]:
    """The sandbox gives what the policy asks for."""
    from cli.formatting import enum_label
    from libs.common.errors import Problem
    from prunella.v1.patcher_pb2 import Isolation

    if target.plane is None:
        return [Finding("sandbox", None, "no plane to ask")]
    try:
        answer = await target.plane.call("patcher.GetPolicy")
    except Problem as problem:
        return [Finding("sandbox", None, f"the patcher does not say: {problem.message}")]
    found, asks = answer.sandbox, answer.policy.min_isolation
    gives = enum_label(Isolation, found.isolation)
    lacks = f" (it lacks {', '.join(found.missing)})" if found.missing else ""
    detail = f"isolation {gives}{lacks}, the policy asks for {enum_label(Isolation, asks)}"
    remedy = f"{found.remedy} or: prunella policy set min_isolation={gives}"
    return [checked("sandbox", found.isolation >= asks, detail, remedy)]


def _log(target: CheckTarget, service: str) -> str:
    from deploy.local import state

    return f"tail {state.locate(target.environ).logs / f'{service}.log'}"


async def database(target: CheckTarget) -> list[Finding]:
    """PostgreSQL answers, its clock is ours, and facts leave it."""
    if not target.database_url:
        return [Finding("postgresql", None, "nobody says where it is (DATABASE_URL)")]
    import asyncpg

    from libs.common.database_connection import connect

    try:
        # Careful of a pooler, whether there is one or not.
        connection = await connect(target.database_url, "doctor", command_timeout=TIMEOUT, pooled=True)
    except ValueError as wrong:
        return [Finding("postgresql", False, f"DATABASE_URL {wrong}", "correct it, and start again")]
    except (TimeoutError, OSError, asyncpg.PostgresError) as error:
        return [Finding("postgresql", False, f"does not answer: {error or type(error).__name__}", START)]
    try:
        return await _ask_database(connection)
    except asyncpg.PostgresError as error:
        return [Finding("postgresql", False, f"answers with: {error}", "prunella up  (migrates it)")]
    finally:
        await connection.close(timeout=TIMEOUT)


async def _ask_database(connection: Any) -> list[Finding]:
    version = await connection.fetchval("SHOW server_version")
    before = time.time()
    theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
    offset = theirs - (before + time.time()) / 2
    age = await connection.fetchval(
        "SELECT extract(epoch FROM clock_timestamp() - min(time)) FROM bus.facts WHERE publish_time IS NULL"
    )
    waits = max(0.0, float(age or 0))
    parked = await connection.fetchval("SELECT count(*) FROM bus.dead_letters WHERE redrive_time IS NULL")
    outbox = "every fact was published" if age is None else f"the oldest fact waits for the bus for {duration(waits)}"
    summary = "none" if parked == 0 else f"{parked} facts could not be handled"
    return [
        Finding("postgresql", True, f"version {version}"),
        checked(
            "clock", abs(offset) < OFFSET, f"{offset * 1000:+.0f} ms from the database's", "timedatectl set-ntp true"
        ),
        checked("outbox", waits < STALE, outbox, "prunella status  (is NATS reachable?)"),
        checked("dead letters", parked == 0, summary, "prunella dead-letters"),
    ]


async def http(target: CheckTarget) -> list[Finding]:
    """The address for curl and browsers, and whether it answers."""
    import httpx2

    address = target.plane_file.get("http", {}).get("ops", "")
    if not address:
        return [Finding("http", None, "nobody says where ops answers HTTP (PRUNELLA_HTTP_LISTEN of ops)")]
    url = f"http://{address}"
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=TIMEOUT) as client:
            answer = await client.get(f"{url}/healthz")
    except httpx2.HTTPError as error:
        return [Finding("http", False, f"{url} does not answer: {error or type(error).__name__}", _log(target, "ops"))]
    well = answer.status_code == 200
    detail = f"{url}  (see {url}/openapi.json)" if well else f"{url}: {answer.text[:200]}"
    return [checked("http", well, detail, _log(target, "ops"))]


async def bus(target: CheckTarget) -> list[Finding]:
    """NATS answers and has its streams."""
    if not target.nats_url:
        return [Finding("nats", None, "nobody says where it is (NATS_URL)")]
    from nats.aio.client import Client
    from nats.errors import Error as NatsError

    async def quiet(_error: Exception) -> None:
        """The finding says it all."""

    client = Client()
    try:
        async with asyncio.timeout(TIMEOUT):
            await client.connect(target.nats_url, connect_timeout=3, allow_reconnect=False, error_cb=quiet)
    except (TimeoutError, OSError, NatsError) as error:
        return [Finding("nats", False, f"does not answer: {error or type(error).__name__}", START)]
    try:
        known = client.connected_server_version
        version = f"{known.major}.{known.minor}.{known.patch}"
        return [Finding("nats", True, f"version {version}"), *[await _stream(client, name) for name in STREAMS]]
    finally:
        await client.close()


async def _stream(client: Any, name: str) -> Finding:
    from nats.errors import Error as NatsError

    try:
        info = await client.jetstream(timeout=3).stream_info(name)
    except (TimeoutError, NatsError) as error:
        return Finding(f"stream {name}", False, f"is not there: {error or type(error).__name__}", "prunella up")
    return Finding(f"stream {name}", True, f"{info.state.messages} messages, {byte_size(info.state.bytes)}")


CHECKS: tuple[Check, ...] = (python, programs, folder, running, services, staging, http, database, bus)
