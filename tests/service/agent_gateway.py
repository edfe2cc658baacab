"""A plane made of one file, for tests of the agent: acknowledges, gives permits as told, remembers everything."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc
from prunella_agent import configurations, releases

ROOT = Path(__file__).resolve().parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT / "libs" / "agent"), str(ROOT / "protos" / "gen")])

PLUGIN_MAIN = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import prunella_agent as prunella
prunella.start(release=RELEASE)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if SICK else 200); self.end_headers()
    def do_POST(self):
        n = int(self.path.rsplit("/", 1)[1])
        for _ in range(n):
            prunella.webhook(ok=False, sample="s")
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("config", open(os.environ["PRUNELLA_CONFIG"]).read(), flush=True)
server.serve_forever()
"""


@dataclass
class Release:
    """A signed release for tests."""

    version: str
    artifact: bytes
    envelope: bytes
    digest: str


class Shop:
    """Makes releases of the package `tiny` and knows the keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pairs = [releases.generate_key() for _ in range(2)]
        self.private = [private for private, _ in pairs]
        self.public = [public for _, public in pairs]
        self.stock: dict[str, Release] = {}

    def make(self, version: str, main: str = PLUGIN_MAIN, *, sick: bool = False) -> Release:
        """A release whose program is `main`."""
        folder = self.folder / f"source-{version}"
        folder.mkdir()
        (folder / "main.py").write_text(f"RELEASE = {version!r}\nSICK = {sick}\n" + main)
        artifact = releases.build_archive(folder)
        manifest = releases.describe(artifact, package="tiny", version=version, probe=(), smoke=())
        envelope = releases.sign(manifest, self.private)
        self.stock[manifest.digest] = Release(version, artifact, envelope, manifest.digest)
        return self.stock[manifest.digest]

    def put(self, release: Release) -> Path:
        """Archive and envelope as files; the archive's path."""
        path = self.folder / f"tiny-{release.version}.tar.gz"
        path.write_bytes(release.artifact)
        path.with_name(path.name + ".dsse").write_bytes(release.envelope)
        return path


@dataclass
class ReceivedMessage:
    """One message and when it came (monotonic seconds)."""

    time: float
    message: pb.ConnectRequest


@dataclass
class Gateway(agent_pb2_grpc.AgentGatewayServicer):
    """The fake plane. Change the flags while it runs."""

    shop: Shop
    grant: Callable[[pb.BeginApply], pb.Permit | None] = lambda _: pb.Permit(granted=True, permit="p")
    acknowledge: bool = True
    acknowledge_results: bool = True
    acknowledge_errors: bool = False
    interval: float = 1.0
    credits: int = 0
    received: list[ReceivedMessage] = field(default_factory=list)
    enrolled: list[pb.EnrollRequest] = field(default_factory=list)
    desired: dict[str, pb.Command] = field(default_factory=dict)
    fence: int = 0
    epoch: int = 0
    port: int = 0
    enroll_failures: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self._calls: dict[int, asyncio.Queue[pb.ConnectResponse | None]] = {}
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listens, on the same port again after a stop."""
        self._server = grpc.aio.server()
        agent_pb2_grpc.add_AgentGatewayServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Vanishes."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    @property
    def address(self) -> str:
        """Where agents reach it."""
        return f"127.0.0.1:{self.port}"

    @property
    def beats(self) -> list[pb.Beat]:
        """Beats in the order of their coming."""
        return [h.message.beat for h in self.received if h.message.WhichOneof("message") == "beat"]

    @property
    def results(self) -> list[pb.CommandResult]:
        """Results in the order of their coming."""
        return [h.message.result for h in self.received if h.message.WhichOneof("message") == "result"]

    def outcomes(self, command: str) -> list[str]:
        """Distinct outcomes of a command, in order, without the prefix."""
        names = [pb.CommandOutcome.Name(r.outcome)[16:] for r in self.results if r.command == command]
        return list(dict.fromkeys(names))

    def kinds(self, kind: str) -> list[pb.ConnectRequest]:
        """All messages of one kind."""
        return [h.message for h in self.received if h.message.WhichOneof("message") == kind]

    def command(self, kind: pb.CommandKind.ValueType, generation: int, **fields: object) -> pb.Command:
        """A new command with the next fence."""
        self.fence += 1
        command = pb.Command(id=str(uuid.uuid4()), attempt="t", kind=kind, generation=generation, fence=self.fence)
        for name, value in fields.items():
            setattr(command, name, value)
        command.deadline_time.FromSeconds(int(time.time()) + 120)
        command.traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
        return command

    def update(self, release: Release, generation: int, dead_man: float = 60.0) -> pb.Command:
        """An update to a release."""
        command = self.command(
            pb.COMMAND_KIND_UPDATE,
            generation,
            release=release.version,
            envelope=release.envelope,
            digest=release.digest,
            size=len(release.artifact),
        )
        command.dead_man_duration.FromNanoseconds(int(dead_man * 1e9))
        return command

    def config_update(
        self, document: bytes, generation: int, *, dead_man: float = 60.0, package: str = "tiny", plugin: str = ""
    ) -> pb.Command:
        """A change of configuration, signed by the shop."""
        given = configurations.describe(document, package=package, version=str(generation), plugin=plugin)
        command = self.command(
            pb.COMMAND_KIND_CONFIG_UPDATE,
            generation,
            envelope=configurations.sign(given, self.shop.private),
            config=document,
            digest=given.digest,
        )
        command.dead_man_duration.FromNanoseconds(int(dead_man * 1e9))
        return command

    def send(self, command: pb.Command) -> pb.Command:
        """Delivers a command now and to every later session until its receipt."""
        self.desired[command.id] = command
        for queue in self._calls.values():
            queue.put_nowait(pb.ConnectResponse(command=command))
        return command

    def send_to_all(self, message: pb.ConnectResponse) -> None:
        """Sends anything on every open stream."""
        for queue in self._calls.values():
            queue.put_nowait(message)

    def end_streams(self) -> None:
        """Ends every stream."""
        for queue in self._calls.values():
            queue.put_nowait(None)

    async def until(self, what: Callable[[], object], seconds: float = 15.0) -> None:
        """Waits until something is true."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"not in {seconds} s; results {self.results}"
            await asyncio.sleep(0.02)

    async def Enroll(self, request: pb.EnrollRequest, context: grpc.aio.ServicerContext) -> pb.EnrollResponse:  # type: ignore[type-arg] # noqa: N802
        self.enrolled.append(request)
        if len(self.enrolled) <= self.enroll_failures:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        if request.token != "good":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown token")
        return pb.EnrollResponse(plugin="p1", secret="s1", release_keys=self.shop.public)

    async def FetchArtifact(  # noqa: N802
        self,
        request: pb.FetchArtifactRequest,
        context: grpc.aio.ServicerContext,  # type: ignore[type-arg]
    ) -> AsyncIterator[pb.FetchArtifactResponse]:
        artifact = self.shop.stock[request.digest].artifact
        for offset in range(request.offset, len(artifact), 1000):
            piece = artifact[offset : offset + 1000]
            yield pb.FetchArtifactResponse(chunk=piece, offset=offset, total_size=len(artifact))

    async def Connect(  # noqa: N802
        self,
        requests: AsyncIterator[pb.ConnectRequest],
        context: grpc.aio.ServicerContext,  # type: ignore[type-arg]
    ) -> AsyncIterator[pb.ConnectResponse]:
        if dict(context.invocation_metadata() or ()).get("authorization") != "Plugin p1:s1":
            self.refused += 1
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        self.epoch += 1
        queue: asyncio.Queue[pb.ConnectResponse | None] = asyncio.Queue()
        self._calls[self.epoch] = queue
        settings = pb.AgentSettings(credits=self.credits, session_epoch=self.epoch)
        settings.beat_interval.FromNanoseconds(int(self.interval * 1e9))
        queue.put_nowait(pb.ConnectResponse(settings=settings))
        for command in self.desired.values():
            queue.put_nowait(pb.ConnectResponse(command=command))
        reader = asyncio.create_task(self._read(requests, queue))
        mine = self.epoch
        try:
            while (answer := await queue.get()) is not None:
                yield answer
        finally:
            del self._calls[mine]
            reader.cancel()

    async def _read(
        self, requests: AsyncIterator[pb.ConnectRequest], queue: asyncio.Queue[pb.ConnectResponse | None]
    ) -> None:
        async for message in requests:
            self.received.append(ReceivedMessage(time.monotonic(), message))
            for answer in self._answers(message):
                queue.put_nowait(answer)
        queue.put_nowait(None)

    def _answers(self, message: pb.ConnectRequest) -> list[pb.ConnectResponse]:
        kind = message.WhichOneof("message")
        if kind == "beat" and self.acknowledge:
            return [pb.ConnectResponse(ack=pb.BeatAck(boot_id=message.beat.boot_id, sequence=message.beat.sequence))]
        if kind == "received":
            self.desired.pop(message.received.command, None)
        if kind == "begin_apply":
            permit = self.grant(message.begin_apply)
            if permit is not None:
                permit.command, permit.nonce = message.begin_apply.command, message.begin_apply.nonce
                return [pb.ConnectResponse(permit=permit)]
        if kind == "result" and self.acknowledge_results:
            ack = pb.ResultAck(command=message.result.command, outcome=message.result.outcome)
            return [pb.ConnectResponse(result_ack=ack)]
        if kind == "errors" and self.acknowledge_errors:
            return [pb.ConnectResponse(errors_ack=pb.ErrorsAck(sequence=message.errors.sequence))]
        return []


class AgentProcess:
    """A supervisor as a real process; killed by its pid."""

    def __init__(self, gateway: Gateway, folder: Path, first: Release) -> None:
        self.gateway = gateway
        self.folder = folder
        self.archive = gateway.shop.put(first)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *extra: str, failpoint: str = "", token: str = "good") -> None:  # noqa: S107
        """Starts it in its folder."""
        environment = os.environ | {"PRUNELLA_AGENT_FAILPOINT": failpoint, "PYTHONPATH": PYTHONPATH}
        with (self.folder.parent / "agent.log").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "prunella_agent", "--plane", self.gateway.address, "--folder", str(self.folder),
                "--package", "tiny", "--token", token, "--release-archive", str(self.archive), "--probe-seconds", "0.5",
                *extra, env=environment, stderr=output,
            )  # fmt: skip

    async def ended(self, seconds: float = 15.0) -> int:
        """Waits for its end; the exit status."""
        assert self.process is not None
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def kill(self) -> None:
        """Kills it, if it lives."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def terminate(self) -> int:
        """Asks it to end; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return await self.ended()

    @property
    def state(self) -> dict[str, Any]:
        """The `state` file."""
        return dict(json.loads((self.folder / "state").read_text()))

    @property
    def steps(self) -> list[str]:
        """The steps in the journal."""
        return [json.loads(line)["step"] for line in (self.folder / "journal").read_text().splitlines()]

    @property
    def current(self) -> str:
        """The release in the slot that `current` names."""
        text = (self.folder / "current" / "main.py").read_text()
        return text.split("'")[1]

    @property
    def configured(self) -> list[str]:
        """What the plugin was configured with, at each of its starts."""
        lines = (self.folder / "plugin.log").read_text().splitlines()
        return [line.removeprefix("config ") for line in lines if line.startswith("config ")]

    async def post(self, failures: int) -> None:
        """Has the plugin count this many failed webhooks."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.state["port"])
        writer.write(f"POST /{failures} HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        assert b"200" in await reader.readline()
        writer.close()

    def alive(self) -> list[int]:
        """Processes that belong to this folder's plugin."""
        mark = f"PRUNELLA_SOCKET={self.folder / 'telemetry.sock'}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found
