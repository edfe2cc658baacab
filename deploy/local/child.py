"""A process we started: it has a log, a way to stop, and never outlives us.

Rule: only our own children are ever signalled, by the process id the kernel gave us, and only while they are not
reaped. Stopping is polite first (the program's own signal), then final. Logs are appended to files that only we can
read, and are cut when they grow too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.account import Account

LAUNCH = Path(__file__).with_name("launch.py")
LOG_BYTES = 16 * 1024 * 1024
LIVE: set[Child] = set()


@dataclass(eq=False)
class Child:
    """A running program; `pid` leads its own process group."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    polite: signal.Signals
    final: signal.Signals = signal.SIGKILL
    stopping: bool = field(default=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """False once it ended."""
        return self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless it ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def wait(self) -> int:
        """Its exit status, negative for a signal; whoever waits must know that it ends."""
        status = await self.process.wait()
        LIVE.discard(self)
        return status

    async def stop(self, grace: float) -> int:
        """Asks it to end, and makes it end after `grace` seconds; its exit status."""
        self.stopping = True
        for number, seconds in ((self.polite, grace), (self.final, 2.0), (signal.SIGKILL, 5.0)):
            self.signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await self.wait()
        raise TimeoutError(f"{self.name} (process {self.pid}) does not die")

    def tail(self, lines: int = 8) -> str:
        """The end of its log, for a person."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace")[-4000:].splitlines()[-lines:])
        return ""


async def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    polite: signal.Signals = signal.SIGTERM,
    final: signal.Signals = signal.SIGKILL,
    on_death: signal.Signals = signal.SIGKILL,
    account: Account | None = None,
    environment: Mapping[str, str] | None = None,
    piped: bool = False,
) -> Child:
    """Starts a program that gets `on_death` when we die. Its output goes to `log`; with `piped`, we talk to it."""
    user = f"{account.uid}:{account.gid}" if account else "-"
    program = [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(int(on_death)), user, "--"]
    with open_log(log) as output:
        process = await asyncio.create_subprocess_exec(
            *program,
            *(str(word) for word in command),
            stdin=asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if piped else output,
            stderr=output,
            env=dict(environment if environment is not None else os.environ),
            cwd="/" if account else None,
        )
    child = Child(name, process, log, polite, final)
    LIVE.add(child)
    return child


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[int]:
    """A descriptor that appends to a file only we can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    truncate_log(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def truncate_log(path: Path) -> None:
    """Keeps one old copy of a log that grew too long. Writers append, so they go on at the new end."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            shutil.copyfile(path, path.with_suffix(path.suffix + ".1"))
            os.truncate(path, 0)


def kill_all() -> None:
    """The second Ctrl-C: everything ends now, in whatever state it is."""
    for child in list(LIVE):
        child.signal(child.final)
