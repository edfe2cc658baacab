"""The plane as real processes: it comes up, heals itself, is attached to, and ends without a trace."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local import health
from deploy.local.plane import SERVICES, Occupied, Plane
from deploy.local.postgres import Postgres
from deploy.local.state import State, private_folder
from deploy.local.testing import BackingServices, Servers, until

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc"),
    pytest.mark.timeout(180),
]


def family(pid: int) -> set[int]:
    """A process and everything below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found: set[int] = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


class Foreground:
    """`python -m deploy.local` on a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.state = State(private_folder(folder))
        self.said = folder / "said.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "PRUNELLA_STATE": str(self.state.folder), **more}
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local"], stderr=said, env=environ, cwd=ROOT, start_new_session=True
            )
        return self.process

    async def ready(self) -> Plane:
        """Attaches when the plane is ready; says why when it is not."""
        process = self.process
        assert process
        await until(
            lambda: self.state.plane().get("ready") or process.poll() is not None,
            START_SECONDS,
            what="the plane starts",
        )
        assert process.poll() is None, self.said.read_text()
        return await Plane.attach(self.state)

    async def end(self, number: signal.Signals, seconds: float = 20.0) -> int:
        process = self.process
        assert process
        process.send_signal(number)
        await until(lambda: process.poll() is not None, seconds, what=f"the plane ends at {number.name}")
        return int(process.returncode)

    def discard(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        Postgres(self.state.folder, 0, "", self.state.logs / "postgresql.log").remove()


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[Foreground]:
    made = Foreground(tmp_path / "state")
    yield made
    made.discard()


async def serving(plane: Plane) -> bool:
    return all((await health.table(plane.addresses)).values())


async def test_a_plane_starts_heals_its_own_parts_and_ends_without_a_trace(foreground: Foreground) -> None:
    supervisor = foreground.start()
    plane = await foreground.ready()
    assert plane.attached
    assert set(plane.addresses) == set(SERVICES)
    assert await serving(plane)
    assert foreground.state.plane_file.stat().st_mode & 0o777 == 0o600

    for name in ("decider", "postgresql", "nats"):
        before = plane.pid(name)
        os.kill(before, signal.SIGKILL)
        await until(lambda name=name, before=before: plane.pid(name) not in {0, before}, 20, what=f"{name} again")  # type: ignore[misc]
    await until(lambda: serving(plane), 30, what="all serve again")

    pids = family(supervisor.pid)
    assert len(pids) > 8
    assert await foreground.end(signal.SIGINT) == 0, foreground.said.read_text()
    assert not [pid for pid in pids if alive(pid)]
    assert not [place for place in plane.addresses.values() if listens(place)]
    assert not foreground.state.is_running()
    assert not foreground.state.plane_file.exists()


async def test_a_second_start_attaches_and_may_not_forget_the_data(foreground: Foreground) -> None:
    foreground.start()
    first = await foreground.ready()
    second = await Plane.start(state=State(foreground.state.folder))
    assert second.attached
    assert second.addresses == first.addresses
    assert second.key == first.key
    with pytest.raises(Occupied, match="stop it first"):
        await Plane.start(state=State(foreground.state.folder), fresh=True)
    await second.stop()
    assert await serving(first), "who attached stops nothing"


async def test_when_the_supervisor_is_killed_nothing_is_left_and_the_next_start_is_where_it_was(
    foreground: Foreground,
) -> None:
    supervisor = foreground.start()
    before = await foreground.ready()
    pids = family(supervisor.pid) - {supervisor.pid}
    supervisor.kill()
    supervisor.wait()
    await until(lambda: not [pid for pid in pids if alive(pid)], 5.0, what="every orphan ends")
    foreground.start()
    again = await foreground.ready()
    assert again.addresses == before.addresses
    assert again.key == before.key
    assert await foreground.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("moment", ["state ", "nats ", "ops "])
async def test_a_start_can_be_stopped_at_any_moment(foreground: Foreground, moment: str) -> None:
    process = foreground.start()
    await until(
        lambda: foreground.said.exists() and moment in foreground.said.read_text(),
        START_SECONDS,
        what=f"line {moment!r}",
    )
    pids = family(process.pid)
    assert await foreground.end(signal.SIGINT) == 0, foreground.said.read_text()
    await until(lambda: not [pid for pid in pids if alive(pid)], 5.0, what="everything ends")


async def test_the_second_interrupt_ends_everything_at_once(foreground: Foreground) -> None:
    process = foreground.start()
    await foreground.ready()
    pids = family(process.pid)
    process.send_signal(signal.SIGINT)
    await until(lambda: "stopping" in foreground.said.read_text(), what="the first is heard")
    await foreground.end(signal.SIGINT, 5.0)
    await until(lambda: not [pid for pid in pids if alive(pid)], 5.0, what="everything ends")


@pytest.fixture
async def external(backing: BackingServices, tmp_path: Path) -> AsyncIterator[Plane]:
    environment = {"DATABASE_URL": backing.url(), "NATS_URL": backing.nats_url}
    plane = await Plane.start(state=State(private_folder(tmp_path / "state")), environment=environment)
    yield plane
    await plane.stop()


async def test_servers_of_yours_are_used_and_a_service_can_be_held_down_and_released(external: Plane) -> None:
    assert await serving(external)
    assert not {"postgresql", "nats"} & set(external.describe()["processes"])
    assert not (external.folder / "nats").exists()

    await external.hold("decider")
    assert external.pid("decider") == 0
    assert not await health.serving(external.addresses["decider"])
    await external.release("decider")
    assert await asyncio.wait_for(health.serving(external.addresses["decider"]), 5)


async def test_data_of_an_older_build_is_named_in_one_sentence(foreground: Foreground, servers: Servers) -> None:
    name = f"t_{secrets.token_hex(5)}"
    await servers.new_database(name)
    owner = await asyncpg.connect(servers.postgres_url(database=name), timeout=10)
    try:
        await owner.execute("UPDATE bus.migrations SET version_num = '0001'")
        process = foreground.start(DATABASE_URL=servers.postgres_url(database=name))
        await until(lambda: process.poll() is not None, START_SECONDS, what="the plane gives up")
        last = foreground.said.read_text().splitlines()[-1]
        assert last.startswith("prunella: schema bus of this database is at revision '0001' of another build")
        assert "`prunella up --fresh`" in last
        assert await owner.fetchval("SELECT version_num FROM bus.migrations") == "0001"
    finally:
        await owner.close()
        await servers.drop_database(name)
