"""Each release of the relay does what the demo says of it: real processes, real traffic, no switch for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.demo import releases
from deploy.demo.traffic import BURST, Traffic, events, plain, rich
from deploy.demo.webhook_sink import WebhookSink
from prunella_agent import launch
from prunella_agent import releases as agent_releases

BROKEN = ("1.2.0", "1.2.1", "1.2.2")
READY_SECONDS = 20


class Running:
    """One release that runs from an unpacked artifact."""

    def __init__(self, version: str, folder: Path, config: dict[str, str]) -> None:
        self.folder, self.port = folder / version, free_port()
        agent_releases.unpack(releases.build(version), self.folder)
        (folder / "config.json").write_text(json.dumps(config))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "sdk"))
        self.socket.settimeout(5)
        self.environment = launch.environment(
            port=self.port, socket=folder / "sdk", config=folder / "config.json", data=folder, base={"PATH": os.defpath}
        )
        # The artifact has to bring everything it needs.
        self.environment.pop("PYTHONPATH")
        self.process = self.start(releases.ENTRYPOINT)

    def start(self, words: tuple[str, ...], **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            launch.command(words), cwd=self.folder, env=self.environment | more, text=True, stdout=subprocess.PIPE
        )

    def run(self, words: tuple[str, ...], **more: str) -> tuple[int, list[dict[str, object]]]:
        process = self.start(words, **more)
        output, _ = process.communicate(timeout=60)
        return process.returncode, [json.loads(line) for line in output.splitlines()]

    def counters(self, attempts: int) -> dict[str, object]:
        """What the SDK said once it had counted so many attempts."""
        while True:
            counted: dict[str, object] = json.loads(self.socket.recv(65536))
            if int(str(counted["attempts"])) >= attempts:
                return counted

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=10)
        finally:
            self.process.kill()
            self.process.communicate()
            self.socket.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def running(version: str, folder: Path, config: dict[str, str] | None = None) -> AsyncIterator[Running]:
    release = Running(version, folder, config or {})
    try:
        deadline = time.monotonic() + READY_SECONDS
        while (await asyncio.to_thread(release.run, releases.PROBE))[0] != 0:
            assert release.process.poll() is None and time.monotonic() < deadline, f"{version} never became healthy"
        yield release
    finally:
        release.stop()


@pytest.fixture
async def sink() -> AsyncIterator[WebhookSink]:
    made = WebhookSink()
    await made.start()
    yield made
    await made.stop()


async def fail_rate(
    version: str, folder: Path, sink: WebhookSink, *, burst: int, bursts: int
) -> tuple[float, dict[str, object]]:
    """Rate of failed webhooks as the shop sees it, and the relay's own counters."""
    config = {"sink": sink.merchant("shop", b"a secret"), "secret": "a secret"}
    async with running(version, folder, config) as relay:
        traffic = Traffic(lambda: relay.port, burst=burst)
        for _ in range(bursts):
            await traffic.send_burst()
        return traffic.failed / traffic.sent, await asyncio.to_thread(relay.counters, traffic.sent)


def test_any_ten_events_in_a_row_hold_six_that_a_careless_serialiser_changes() -> None:
    stream = events()
    changed = []
    for _ in range(200):
        body = next(stream)
        changed.append(json.dumps(json.loads(body), separators=(",", ":")).encode() != body)
    assert {sum(changed[start : start + 10]) for start in range(190)} == {6}
    assert all(json.loads(plain(n)) and json.loads(rich(n)) for n in range(50))


@pytest.mark.parametrize("version", BROKEN)
async def test_a_broken_release_fails_on_sixty_percent_of_real_events(
    version: str, tmp_path: Path, sink: WebhookSink
) -> None:
    rate, counted = await fail_rate(version, tmp_path, sink, burst=BURST, bursts=10)
    assert rate == pytest.approx(0.6, abs=0.02)
    assert (counted["attempts"], counted["failures"], counted["release"]) == (70, 42, version)
    samples = counted["samples"]
    assert isinstance(samples, list) and len(samples) == 3 and all(json.loads(sample) for sample in samples)


@pytest.mark.parametrize("version", ["1.1.0", "1.2.3"])
async def test_a_good_release_fails_on_nothing(version: str, tmp_path: Path, sink: WebhookSink) -> None:
    rate, counted = await fail_rate(version, tmp_path, sink, burst=BURST, bursts=10)
    assert (rate, counted["failures"], sink.rejected) == (0.0, 0, {})
    assert sink.taken == {"shop": 70}


async def test_1_3_0_degrades_under_concurrent_load_and_not_one_by_one(tmp_path: Path, sink: WebhookSink) -> None:
    (tmp_path / "load").mkdir()
    (tmp_path / "single").mkdir()
    under_load, _ = await fail_rate("1.3.0", tmp_path / "load", sink, burst=BURST, bursts=15)
    one_by_one, _ = await fail_rate("1.3.0", tmp_path / "single", sink, burst=1, bursts=30)
    assert 0.3 <= under_load <= 0.9
    assert one_by_one == 0.0


@pytest.mark.parametrize("version", ["1.2.3", "1.3.0"])
async def test_smoke_tests_of_a_mended_release_pass_with_the_inputs_that_failed(version: str, tmp_path: Path) -> None:
    (tmp_path / "replay.json").write_text(json.dumps([rich(n).decode() for n in range(3)]))
    async with running(version, tmp_path) as relay:
        code, lines = await asyncio.to_thread(relay.run, releases.SMOKE, PRUNELLA_REPLAY=str(tmp_path / "replay.json"))
    assert code == 0
    assert len(lines) == 9 and all(line["ok"] for line in lines)


async def test_smoke_tests_of_1_2_4_fail_because_amounts_change(tmp_path: Path) -> None:
    async with running("1.2.4", tmp_path) as relay:
        code, lines = await asyncio.to_thread(relay.run, releases.SMOKE)
    assert code == 1
    failed = {line["test"]: line["detail"] for line in lines if not line["ok"]}
    assert failed["amounts to the cent"] == "the sink took other bytes than were sent"
    assert {line["test"] for line in lines if line["ok"]} == {"health", "a small event"}


@pytest.mark.parametrize("version", BROKEN)
async def test_a_broken_release_passed_the_smoke_tests_it_shipped_with(version: str, tmp_path: Path) -> None:
    async with running(version, tmp_path) as relay:
        assert (await asyncio.to_thread(relay.run, releases.SMOKE))[0] == 0
        (tmp_path / "replay.json").write_text(json.dumps([rich(1).decode()]))
        code, _ = await asyncio.to_thread(relay.run, releases.SMOKE, PRUNELLA_REPLAY=str(tmp_path / "replay.json"))
        assert code == 1, "a replayed input shows the bug that the suite did not know"


def test_artifacts_are_the_same_bytes_every_time_and_both_keys_sign_them() -> None:
    keys = [agent_releases.generate_key()[0] for _ in range(2)]
    made = releases.release("1.2.3", keys)
    releases.build.cache_clear()
    assert releases.build("1.2.3") == made.artifact
    manifest = agent_releases.verify(made.envelope, [agent_releases.public_key(key) for key in keys])
    agent_releases.check_artifact(manifest, made.artifact)
    assert (manifest.package, manifest.version, manifest.digest) == ("relay", "1.2.3", made.digest)
    assert len({releases.release(version, keys).digest for version in releases.VERSIONS}) == len(releases.VERSIONS)


def test_nothing_in_the_sources_reads_a_fault_switch() -> None:
    words = ("fault", "chaos", "fail_rate", "inject")
    for path in releases.SOURCES.rglob("*.py"):
        text = path.read_text().lower()
        assert not [word for word in words if word in text], path
