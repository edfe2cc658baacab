"""The supervisor of one plugin: enrols, runs the release, speaks with the plane, heals. Wiring only.

Files in the folder: credential.json and enrollment.json (0600), journal, slots/a and slots/b, current, configs/, data/
(the plugin's own), plugin.log, lock, and `state`, a JSON object for people and scripts: plugin, boot_id, port, pid,
release, generation, health, connected. Rule: one supervisor per folder; it ends on SIGTERM and SIGINT with a goodbye,
and whatever kills it, its plugin does not outlive it. Nothing that the host does to it (`conditions`) ends it or its
plugin, and nobody but who asks it to end makes it say goodbye.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import grpc

from prunella.v1 import agent_pb2 as pb
from prunella_agent import credential, launch, releases
from prunella_agent.agent_folder import lock_folder, previous_port, socket_path, write_state
from prunella_agent.archive import ReleaseError
from prunella_agent.beats import HEALTH, Beats
from prunella_agent.clock import SystemClock
from prunella_agent.command_executor import CommandExecutor
from prunella_agent.conditions import Conditions
from prunella_agent.configurations import DigestCache
from prunella_agent.enroll import enroll
from prunella_agent.install import envelope_path, install, save_config
from prunella_agent.journal import Journal, JournalBroken
from prunella_agent.options import Options, parse
from prunella_agent.plugin_process import Health, PluginProcess, kill_leftovers
from prunella_agent.receipts import Receipts
from prunella_agent.session import Session, open_channel
from prunella_agent.slot_switch import SlotSwitch
from prunella_agent.slots import Slots
from prunella_agent.state import Install
from prunella_agent.telemetry import Telemetry

log = logging.getLogger("prunella_agent")

CAPABILITIES = ("update", "rollback", "restart", "health_check", "commit", "config_update")
HEALTH_NAMES = {number: health.value for health, number in HEALTH.items()}
SOONEST_BEAT_SECONDS = 1.0


class Supervisor:
    """Everything that runs for one plugin; `run` until `request_stop`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = options.folder.resolve()
        self.clock = SystemClock()
        self.conditions = Conditions(self.clock)
        self._starting_again: asyncio.Task[None] | None = None
        self._beat_soon: asyncio.TimerHandle | None = None
        self._stop_requested = asyncio.Event()
        self._boot_id = str(uuid.uuid4())
        self._socket_path = socket_path(self.folder)
        self._port = options.port
        # What requirements of releases are compared with.
        self.environment = ({"agent": agent_version()} if agent_version() else {}) | options.environment

    def request_stop(self) -> None:
        """Ends with a goodbye; asked twice, at once (the kernel then ends the plugin)."""
        if self._stop_requested.is_set():
            os._exit(1)
        self._stop_requested.set()

    async def run(self) -> None:
        """Runs until asked to end. Raises what makes it impossible to begin."""
        for name in ("data", "configs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        lock = lock_folder(self.folder / "lock")
        kill_leftovers(self._socket_path)
        channel = open_channel(self.options.plane)
        try:
            identity = asyncio.create_task(self._identity(channel))
            stop_requested = asyncio.create_task(self._stop_requested.wait())
            await asyncio.wait({identity, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
            if identity.done():
                self.identity = identity.result()
                self._wire(channel)
                await self._serve(stop_requested)
            identity.cancel()
            stop_requested.cancel()
        finally:
            await channel.close()
            os.close(lock)

    async def _identity(self, channel: grpc.aio.Channel) -> credential.Credential:
        path = self.folder / "credential.json"
        known = credential.load(path)
        if known is not None:
            return known
        identity = await enroll(
            channel,
            token=self.options.token,
            enrollment_key=credential.enrollment_key(self.folder / "enrollment.json"),
            package=self.options.package,
            release=self._first_release(),
            merchant=self.options.merchant,
            environment=self.environment,
        )
        # Should it not be saved before a death, the same key gets the same plugin again.
        self.conditions.keep("saving the identity", self.folder, lambda: identity.save(path))
        return identity

    def _wire(self, channel: grpc.aio.Channel) -> None:
        self.journal = Journal(self.folder / "journal")
        if not self.journal.writable:
            self.conditions.keep("the journal", self.folder, self.journal.check)
        self.slots = Slots(self.folder)
        self.session = Session(
            self.options.plane,
            self.identity,
            hello=self._hello,
            on_command=self._on_command,
            on_result_ack=self._on_result_ack,
            boot_id=self._boot_id,
            channel=channel,
            clock=self.clock,
        )
        self.telemetry = Telemetry(self._socket_path, on_error=self.session.report_errors)
        self.plugin = PluginProcess(
            log=self.folder / "plugin.log",
            clock=self.clock,
            on_change=self._beat,
            probe_interval=lambda: 1.0 if self.switch.in_probation else self.options.probe_seconds,
            conditions=self.conditions,
        )
        self._wire_healing()

    def _wire_healing(self) -> None:
        receipts = Receipts(self.journal, self.clock, self.session.report)
        self.switch = SlotSwitch(
            journal=self.journal,
            slots=self.slots,
            runner=self,
            receipts=receipts,
            clock=self.clock,
            beat=self._beat,
            conditions=self.conditions,
        )
        self.beats = Beats(
            session=self.session,
            telemetry=self.telemetry,
            plugin=self.plugin,
            switch=self.switch,
            clock=self.clock,
            environment=self.environment,
            journal=self.journal,
            configs=DigestCache(self.folder / "configs"),
            conditions=self.conditions,
            on_beat=self._write_state,
        )
        self.executor = CommandExecutor(
            journal=self.journal,
            slots=self.slots,
            switch=self.switch,
            receipts=receipts,
            plane=self.session,
            probe=self.plugin.probe,
            keys=self.identity.release_keys,
            package=self.options.package,
            plugin=self.identity.plugin,
            configs=self.folder / "configs",
            environment=self.environment,
            clock=self.clock,
            conditions=self.conditions,
        )

        self.conditions.on_change = self._on_conditions

    async def _serve(self, stop_requested: asyncio.Task[bool]) -> None:
        self.conditions.keep("the telemetry socket", self._socket_path.parent, self.telemetry.start)
        beating: asyncio.Task[None] | None = None
        try:
            self._port = self._port or previous_port(self.folder / "state")
            self.executor.resend_receipts()
            await self.switch.recover()
            if self._install():
                await self.switch.recover()
            self.executor.resume()
            self.session.start()
            beating = asyncio.create_task(self.beats.run(), name="beats")
            await asyncio.wait({stop_requested, beating}, return_when=asyncio.FIRST_COMPLETED)
            if beating.done():
                beating.result()
        finally:
            for pending in (beating, self._beat_soon, self._starting_again):
                if pending is not None:
                    pending.cancel()
            await self.executor.stop()
            # Who ends for any other reason than being asked to must be missed.
            await (self.session.stop(goodbye=self._goodbye()) if stop_requested.done() else self.session.abort())
            await self.switch.stop()
            self.telemetry.stop()
            self.journal.close()

    def _goodbye(self) -> pb.Goodbye:
        goodbye = pb.Goodbye(reason="shutdown")
        if self.options.back_within > 0:
            goodbye.back_within_duration.FromNanoseconds(int(self.options.back_within * 1e9))
        return goodbye

    def _on_conditions(self) -> None:
        if self._beat_soon is None:
            # Told soon, and not at every turn of something that comes and goes.
            wait = max(SOONEST_BEAT_SECONDS - self.beats.age, 0.0)
            self._beat_soon = asyncio.get_running_loop().call_later(wait, self._tell_conditions)
        if not self.conditions and self.plugin.held_up and self._starting_again is None:
            self._starting_again = asyncio.create_task(self._start_again(), name="start again")

    def _tell_conditions(self) -> None:
        self._beat_soon = None
        self._beat()

    async def _start_again(self) -> None:
        try:
            await self.switch.start_again()
        finally:
            self._starting_again = None

    def _first_release(self) -> str:
        # What the agent claims of itself; it is verified, with the keys of the enrolment, before it runs.
        if self.options.archive is None:
            return ""
        envelope = self.options.envelope or envelope_path(self.options.archive)
        return releases.read_manifest(releases.open_envelope(envelope.read_bytes())[0]).version

    def _install(self) -> bool:
        archive, running = self.options.archive, self.journal.state.running
        if running is not None and not self.options.reinstall:
            return False
        if archive is None:
            raise ReleaseError("nothing is installed here; give --release-archive", "NOTHING_INSTALLED")
        envelope = self.options.envelope or envelope_path(archive)
        try:
            config = running.config if running else ""
            if self.options.config or not config:
                config = save_config(self.folder / "configs", self.options.config)
            install(
                self.journal,
                self.slots,
                self.identity,
                archive=archive,
                envelope=envelope,
                package=self.options.package,
                config=config,
                environment=self.environment,
            )
        except OSError as error:
            if running is None:
                raise
            # What runs goes on; the person who asked for another release reads it here and sees it in the plane.
            self.conditions.note("the installation by hand", error, self.folder, self.slots.check)
            return False
        return True

    async def start(self, install: Install) -> None:
        """Runs an install (the switch's runner)."""
        environment = launch.environment(
            port=self._port,
            socket=self._socket_path,
            config=self.folder / "configs" / install.config,
            data=self.folder / "data",
        )
        await self.plugin.start(install, self.slots.path(install.slot), environment)

    async def stop(self) -> None:
        """Stops what runs and reads its last counters (the switch's runner)."""
        await self.plugin.stop()
        self.telemetry.drain()

    async def wait_started(self, seconds: float) -> Health:
        """Waits for a start (the switch's runner)."""
        return await self.plugin.wait_started(seconds)

    @property
    def held_up(self) -> bool:
        """Whether the host prevented the last start (the switch's runner)."""
        return self.plugin.held_up

    async def _on_command(self, command: pb.Command) -> None:
        await self.executor.accept(command)

    def _beat(self) -> None:
        self.beats.send()

    def _hello(self) -> pb.Hello:
        active = self.journal.state.active
        return pb.Hello(
            agent_version=agent_version(),
            capabilities=CAPABILITIES,
            package=self.options.package,
            release=active.release if active else "",
            generation=active.generation if active else 0,
            fence=self.journal.state.fence,
        )

    def _on_result_ack(self, ack: pb.ResultAck) -> None:
        if f"{ack.command}/{ack.outcome}" in self.journal.state.unacknowledged:
            # Not written, it is sent once more after the next start, which changes nothing.
            with self.conditions.watching("the journal", self.folder, self.journal.check):
                self.journal.write("ACKNOWLEDGED", command=ack.command, outcome=int(ack.outcome))

    def _write_state(self, beat: pb.Beat) -> None:
        fields = {
            "plugin": self.identity.plugin,
            "boot_id": self._boot_id,
            "port": self._port,
            "pid": self.plugin.pid,
            "release": beat.release,
            "generation": beat.generation,
            "health": HEALTH_NAMES[beat.health],
            "connected": self.session.connected,
        }
        with self.conditions.watching("the state file", self.folder):
            write_state(self.folder / "state", fields)


def agent_version() -> str:
    """The installed version of this distribution; empty when it runs from a checkout."""
    try:
        return version("prunella-agent")
    except PackageNotFoundError:
        return ""


def stop_with_parent() -> None:
    """Has the kernel send SIGTERM when the parent is gone."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)


async def supervise(options: Options) -> None:
    """Runs one supervisor in this event loop until a signal asks it to end."""
    supervisor = Supervisor(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.request_stop)
    await supervisor.run()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `prunella-agent`."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.with_parent:
        stop_with_parent()
    try:
        asyncio.run(supervise(options))
    except BlockingIOError:
        sys.exit(f"prunella-agent: another supervisor runs in {options.folder}")
    except ReleaseError as error:
        sys.exit(f"prunella-agent: {error.reason}: {error.message}")
    except grpc.aio.AioRpcError as error:
        sys.exit(f"prunella-agent: the plane refused: {error.code().name} {error.details()}")
    except (JournalBroken, OSError, ValueError) as error:
        sys.exit(f"prunella-agent: {error}")


if __name__ == "__main__":
    main()
