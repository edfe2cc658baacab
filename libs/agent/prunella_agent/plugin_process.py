"""The plugin's process: started, probed, stopped, and never restarted behind the plane's back.

Rule: a plugin that dies is DOWN until somebody decides; the supervisor only says so. The process has its own process
group, dies with the supervisor, and is stopped with SIGTERM and, five seconds later, SIGKILL for the whole group. Its
output goes to a log of at most two times 1 MiB. What the host does to the supervisor says nothing about the plugin: a
probe that cannot be asked changes no health, and a start that the host prevented is `held_up` until it can be made.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

from prunella_agent import die_with_parent, launch
from prunella_agent.clock import Clock
from prunella_agent.conditions import Conditions, check_descriptors, check_program, check_room, classify
from prunella_agent.state import Install

STOP_SECONDS = 5.0
PROBE_SECONDS = 5.0
START_SECONDS = 30.0
MAX_LOG = 1024 * 1024
STARTING = "starting programs"


class Health(Enum):
    """The plugin as its supervisor sees it."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DOWN = "down"


class PluginProcess:
    """At most one process of the plugin, and what is known about it."""

    def __init__(
        self,
        *,
        log: Path,
        clock: Clock,
        on_change: Callable[[], None],
        probe_interval: Callable[[], float],
        conditions: Conditions,
    ) -> None:
        # Nothing has been started yet; only a process that is gone is down.
        self.health = Health.STARTING
        self.held_up = False
        self._log_path = log
        self._clock = clock
        self._conditions = conditions
        self._entrypoint: list[str] = []
        self._on_change = on_change
        self._probe_interval = probe_interval
        self._process: asyncio.subprocess.Process | None = None
        self._watchers: list[asyncio.Task[None]] = []
        self._started = 0.0
        self._probe: Callable[[], list[str]] = list
        self._environment: Mapping[str, str] = {}
        self._folder = Path()

    @property
    def uptime(self) -> float:
        """Seconds since the process was started; 0 when there is none."""
        return self._clock.monotonic() - self._started if self._process else 0.0

    @property
    def down(self) -> bool:
        """Whether there is no process."""
        return self._process is None or self.health is Health.DOWN

    @property
    def pid(self) -> int:
        """The process id; 0 when there is none."""
        return self._process.pid if self._process else 0

    async def start(self, install: Install, folder: Path, environment: Mapping[str, str]) -> None:
        """Starts a release from its slot. A program that cannot be started is DOWN, not an error."""
        self._folder, self._environment = folder, environment
        self._probe = lambda: launch.command(install.probe)
        self._entrypoint = launch.command(install.entrypoint)
        self.held_up = True
        with self._conditions.watching(STARTING, sys.executable, self.check_host):
            self.check_host()
            await self._spawn()
            self.held_up = False
        if self.held_up:
            self._set_health(Health.DOWN)

    def check_host(self) -> None:
        """Raises OSError when the host would not let the plugin start: no interpreter, no descriptors."""
        check_program(self._entrypoint, self._folder)
        check_descriptors()

    def look_at_host(self) -> None:
        """Notes it when the host would not let the plugin start, before anybody has to find out."""
        with self._conditions.watching(STARTING, sys.executable, self.check_host):
            self.check_host()

    async def _spawn(self) -> None:
        reader, writer = os.pipe()
        try:
            # It ends with the last writer, be that the plugin or, when it cannot be started, this one.
            self._copy_output(reader)
            self._process = await asyncio.create_subprocess_exec(
                *die_with_parent_command(self._entrypoint),
                cwd=self._folder,
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                start_new_session=True,
            )
        except OSError as error:
            self._log(f"could not be started: {error}\n".encode())
            raise
        finally:
            os.close(writer)
        self._started = self._clock.monotonic()
        self._set_health(Health.STARTING)
        self._watchers = [
            asyncio.create_task(self._wait(self._process), name="plugin exit"),
            asyncio.create_task(self._watch(), name="plugin health"),
        ]

    async def stop(self) -> None:
        """Stops the process and everything it started; returns when it is gone."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers = []
        process, self._process = self._process, None
        if process is None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                signal_group(process.pid, signal.SIGTERM)
                await process.wait()
        except TimeoutError:
            pass  # the next signal cannot be refused
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()

    async def wait_started(self, seconds: float) -> Health:
        """Waits until a start has succeeded or failed, or the time is over; the health then."""
        deadline = self._clock.monotonic() + seconds
        while self.health is Health.STARTING and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.02)
        return self.health

    async def probe(self) -> bool:
        """Asks the release's own probe, or GET /health when it has none, whether the plugin is healthy.

        Raises HostFault when the host did not let it be asked.
        """
        if self._process is None or self._process.returncode is not None:
            return False
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                arguments = self._probe()
                return await (self._run_probe(arguments) if arguments else self._get_health())
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, ValueError):
            return False
        except OSError as error:
            raise classify(error, sys.executable) from error

    async def _run_probe(self, arguments: list[str]) -> bool:
        check_descriptors()
        probe = await asyncio.create_subprocess_exec(
            *die_with_parent_command(arguments),
            cwd=self._folder,
            env=dict(self._environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return await probe.wait() == 0
        finally:
            signal_group(probe.pid, signal.SIGKILL)

    async def _get_health(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self._environment["PORT"]))
        try:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await writer.drain()
            status = (await reader.readline()).split()
            return len(status) > 1 and status[1][:1] == b"2"
        finally:
            writer.close()

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if self._process is process:
            self._set_health(Health.DOWN)

    async def _watch(self) -> None:
        while not self.down:
            with self._conditions.watching("probing the plugin", sys.executable):
                healthy = await self.probe()
                if not healthy and self.health is Health.HEALTHY:
                    await self._clock.sleep(0.5)  # one failed probe may be the machine's fault
                    healthy = await self.probe()
                self._update_health(healthy)
            await self._clock.sleep(0.1 if self.health is Health.STARTING else self._probe_interval())

    def _update_health(self, healthy: bool) -> None:
        if self.down:
            return
        if healthy:
            self._set_health(Health.HEALTHY)
        elif self.health is not Health.STARTING or self.uptime > START_SECONDS:
            self._set_health(Health.UNHEALTHY)

    def _set_health(self, health: Health) -> None:
        if health is not self.health:
            self.health = health
            self._on_change()

    def _copy_output(self, reader: int) -> None:
        loop = asyncio.get_running_loop()
        os.set_blocking(reader, False)

        def readable() -> None:
            try:
                data = os.read(reader, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                # What finds no room is lost: a plugin that waits for its log would be worse.
                self._log(data)
            else:
                loop.remove_reader(reader)
                os.close(reader)

        loop.add_reader(reader, readable)

    def _log(self, data: bytes) -> None:
        with self._conditions.watching("writing the plugin's log", self._log_path.parent, self.check_log):
            self._append(data)

    def check_log(self) -> None:
        """Raises OSError when the plugin's output finds no room."""
        check_room(self._log_path.parent, 1)

    def _append(self, data: bytes) -> None:
        with self._log_path.open("ab", buffering=0) as stream:
            stream.write(data)
            full = stream.tell() > MAX_LOG
        if full:
            self._log_path.replace(self._log_path.with_name(self._log_path.name + ".1"))


def die_with_parent_command(arguments: list[str]) -> list[str]:
    """A command whose process dies with this one."""
    return [sys.executable, "-I", "-S", str(Path(die_with_parent.__file__)), str(os.getpid()), *arguments]


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signals a process group of ours; one that is gone needs none."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill_leftovers(socket: Path) -> None:
    """Kills what an earlier run of this folder left: processes whose environment names its socket."""
    mark = f"PRUNELLA_SOCKET={socket}".encode()
    try:
        found = list(Path("/proc").glob("[0-9]*"))
    except OSError:
        return
    for folder in found:
        try:
            marked = mark in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if marked and int(folder.name) != os.getpid():
            try:
                os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue
