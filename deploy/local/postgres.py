"""PostgreSQL as a child of ours.

Rule: a durable server (fsync and synchronous_commit stay on) that listens on loopback only, asks everybody for a
password, and has no socket file. We launch `postgres` itself: it is ready when it answers, stops at SIGINT, and gets
that signal from the kernel when we die. A `postmaster.pid` left by a crash is no obstacle: our lock says that nobody
else runs this data; if the process it names is still our server on its way out, we wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from deploy.local import binaries
from deploy.local.account import Account, own_folder, unprivileged
from deploy.local.child import Child, spawn
from deploy.local.ports import HOST
from deploy.local.state import label, private_folder, root_folder, write_text

OWNER = "prunella"
DATABASE = "prunella"
START_SECONDS = 60.0  # crash recovery may take long; silence may not
INITDB = ("-U", OWNER, "--auth=scram-sha-256", "-E", "UTF8", "--no-locale")
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "150",
    "shared_buffers": "96MB",
    "max_wal_size": "1GB",
    "min_wal_size": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "on",
    "checkpoint_timeout": "10min",
    "random_page_cost": "1.1",
    "jit": "off",
    "autovacuum_naptime": "15s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %u ",
}


class Unready(Exception):  # noqa: N818 - says what it means
    """A server ended or did not answer; the text holds the end of its log."""


@dataclass
class Postgres:
    """One server on one data folder."""

    folder: Path
    port: int
    password: str
    log: Path
    durable: bool = True
    account: Account | None = field(default_factory=unprivileged)
    child: Child | None = None

    @property
    def home(self) -> Path:
        """The folder of the data folder: ours, or, when the database's user cannot reach that, one kept for root."""
        if self.account is None or self.account.reaches(self.folder / "pg"):
            return self.folder
        return root_folder() / f"pg-{label(self.folder)}"

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.home / "pg"

    def url(self, user: str = OWNER, password: str = "", database: str = DATABASE) -> str:
        """Address for a role; the owner's when none is named."""
        return f"postgresql://{user}:{password or self.password}@{HOST}:{self.port}/{database}"

    async def start(self) -> None:
        """Makes the data folder at first, starts the server and waits until it answers.

        Raises Unready, or NotInstalled when there are no binaries.
        """
        found = await asyncio.to_thread(binaries.postgres)
        programs = await asyncio.to_thread(binaries.runnable, found, self.account)
        if not (self.data / "PG_VERSION").exists():
            await self._create(programs)
        await self._clear_stale()
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.child = await self._launch(programs)
            if await self._answers(deadline):
                break
            # The last server's shared memory may outlive it by an instant.
            if "still in use" not in self.child.tail() or time.monotonic() > deadline:
                raise Unready(f"PostgreSQL ended at once; {self.log} says:\n{self.child.tail()}")
            await asyncio.sleep(0.3)
        await self._make_database()

    async def stop(self) -> None:
        """Fast stop: open transactions are rolled back, everything committed is on disk."""
        if self.child:
            await self.child.stop(grace=20.0)

    def remove(self) -> None:
        """Deletes the data; only when stopped."""
        shutil.rmtree(self.data if self.home == self.folder else self.home, ignore_errors=True)

    async def _create(self, programs: Path) -> None:
        if self.home != self.folder:
            remove_orphans()
            private_folder(self.home)
            write_text(self.home / "folder", str(self.folder))
        draft = self.data.with_name(self.data.name + ".new")
        for left_over in (self.data, draft):
            shutil.rmtree(left_over, ignore_errors=True)
        own_folder(draft, self.account)
        secret = draft / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        if self.account:
            shutil.chown(secret, self.account.uid, self.account.gid)
        speed = [] if self.durable else ["--no-sync"]
        initdb = await spawn(
            "initdb",
            [programs / "initdb", *INITDB, f"--pwfile={secret}", *speed, "-D", draft / "data"],
            log=self.log,
            account=self.account,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                status = await initdb.wait()
        except BaseException:
            await initdb.stop(grace=1.0)
            raise
        if status != 0:
            raise Unready(f"initdb failed; {self.log} says:\n{initdb.tail()}")
        (draft / "data").rename(self.data)
        shutil.rmtree(draft)

    async def _launch(self, programs: Path) -> Child:
        settings = {**SETTINGS, "port": str(self.port)}
        if not self.durable:
            settings.update(fsync="off", synchronous_commit="off", full_page_writes="off")
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return await spawn(
            "postgresql",
            [programs / "postgres", "-D", self.data, *options],
            log=self.log,
            polite=signal.SIGINT,
            final=signal.SIGQUIT,
            on_death=signal.SIGINT,
            account=self.account,
        )

    async def _answers(self, deadline: float) -> bool:
        """True when the server answers, False when it ended; Unready after the deadline."""
        assert self.child
        while self.child.running:
            with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError):
                connection = await asyncpg.connect(self.url(database="postgres"), timeout=5)
                await connection.close(timeout=5)
                return True
            if time.monotonic() > deadline:
                await self.stop()
                raise Unready(f"PostgreSQL does not answer; {self.log} says:\n{self.child.tail()}")
            await asyncio.sleep(0.02)
        return False

    async def _make_database(self) -> None:
        connection = await asyncpg.connect(self.url(database="postgres"), timeout=5)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
                await connection.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC")
        finally:
            await connection.close(timeout=5)

    async def _clear_stale(self) -> None:
        """Deals with the pid file of a server that did not end in order."""
        file = self.data / "postmaster.pid"
        deadline = time.monotonic() + START_SECONDS
        while (pid := _named_pid(file)) and serves(pid, self.data):
            # Ours, from a plane that died a moment ago: it was told to stop by the kernel, and told once more.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            if time.monotonic() > deadline:
                raise Unready(f"an old PostgreSQL (process {pid}) on {self.data} does not end")
            await asyncio.sleep(0.1)
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def remove_orphans() -> None:
    """Deletes data that was kept for folders that have gone, such as those of tests that were interrupted."""
    for note in root_folder().glob("pg-*/folder"):
        data = note.parent / "pg"
        if not Path(note.read_text()).exists() and not serves(_named_pid(data / "postmaster.pid"), data):
            shutil.rmtree(note.parent, ignore_errors=True)


def _named_pid(file: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(file.read_text().splitlines()[0])
    return 0


def serves(pid: int, data: Path) -> bool:
    """Whether a process is a PostgreSQL on this data folder, and not another one that was given an old number."""
    with contextlib.suppress(OSError):
        return str(data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    if Path("/proc/self").exists():
        return False
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return True
    return False
