"""A supervisor whose host hinders it: the plugin runs on, the plane hears why, nothing is changed meanwhile.

A limit on the size of files is a full disk for whoever runs under it, a limit on descriptors is the one of its host.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prunella.v1 import agent_pb2 as pb
from prunella_agent import releases
from tests.service.agent_gateway import PLUGIN_MAIN, AgentProcess, Gateway, Release, Shop

HEALTHY, DOWN = pb.HEALTH_HEALTHY, pb.HEALTH_DOWN
# Fewer than a supervisor has open: those stay, and there is none for anything new.
FEW_DESCRIPTORS = 8

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    plane = Gateway(Shop(tmp_path), interval=0.3)
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def agent(gateway: Gateway, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    process = AgentProcess(gateway, tmp_path / "agent", gateway.shop.make("1.0.0"))
    yield process
    await process.kill()
    await gateway.until(lambda: not process.alive())


def limit(agent: AgentProcess, what: int, most: int) -> Callable[[], None]:
    """Limits the supervisor, whoever it runs as; what takes the limit away again."""
    assert agent.process is not None
    pid = agent.process.pid
    before, hard = resource.prlimit(pid, what, (most, resource.prlimit(pid, what)[1]))
    return lambda: _lift(pid, what, before, hard)


def _lift(pid: int, what: int, before: int, hard: int) -> None:
    resource.prlimit(pid, what, (before, hard))


@contextmanager
def full_disk(agent: AgentProcess) -> Iterator[None]:
    """Nothing that the supervisor writes goes to the disk; what runs already has a disk of its own."""
    lift = limit(agent, resource.RLIMIT_FSIZE, 0)
    try:
        yield
    finally:
        lift()


async def beats(gateway: Gateway, check: Callable[[pb.Beat], object], count: int = 1) -> pb.Beat:
    """Waits until so many beats after now are as wanted; the last of them."""
    seen = len(gateway.beats)
    await gateway.until(lambda: sum(bool(check(one)) for one in gateway.beats[seen:]) >= count, 30)
    return next(one for one in reversed(gateway.beats) if check(one))


def runs(release: str, generation: int = 0) -> Callable[[pb.Beat], bool]:
    return lambda one: (one.release, one.generation, one.health) == (release, generation, HEALTHY)


def conditions(beat: pb.Beat) -> set[tuple[str, str]]:
    return {(one.type, one.subject) for one in beat.conditions}


async def test_a_full_disk_neither_takes_the_plugin_down_nor_is_it_a_goodbye(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    pid = agent.state["pid"]
    with full_disk(agent):
        told = await beats(gateway, lambda one: one.conditions and one.health == HEALTHY, 5)
        assert conditions(told) == {("disk_full", str(agent.folder))}
        (condition,) = told.conditions
        assert condition.detail == os.strerror(27)
        assert abs(condition.since_time.seconds - told.time.seconds) < 60
        assert (agent.process and agent.process.returncode) is None
        await agent.post(3)
        await beats(gateway, lambda one: one.webhook_failures == 3)
    await beats(gateway, lambda one: not one.conditions and one.health == HEALTHY)
    assert agent.state["pid"] == pid, "it is the same process all along"
    assert gateway.kinds("goodbye") == []
    assert len({one.boot_id for one in gateway.beats}) == 1
    assert all(one.health != DOWN for one in gateway.beats)


@pytest.mark.parametrize("kind", ["update", "restart", "config_update"])
async def test_what_needs_the_disk_is_refused_with_the_reason_and_changes_nothing(
    gateway: Gateway, agent: AgentProcess, kind: str
) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    made = {
        "update": lambda: gateway.update(gateway.shop.make("1.1.0"), 1),
        "restart": lambda: gateway.command(pb.COMMAND_KIND_RESTART, 1),
        "config_update": lambda: gateway.config_update(b'{"a": 1}', 1),
    }[kind]()
    with full_disk(agent):
        await beats(gateway, lambda one: one.conditions)
        gateway.send(made)
        await gateway.until(lambda: gateway.outcomes(made.id) == ["REFUSED"])
        assert gateway.results[-1].detail.startswith(f"AGENT_DEGRADED: disk_full: {agent.folder}: ")
        said = len(gateway.results)
        gateway.send(made)
        await gateway.until(lambda: len(gateway.results) > said)
        assert gateway.outcomes(made.id) == ["REFUSED"], "a repeat gets the same answer"
    await beats(gateway, lambda one: runs("1.0.0")(one) and not one.conditions)
    said = len(gateway.results)
    gateway.send(made)
    await gateway.until(lambda: len(gateway.results) > said)
    assert gateway.outcomes(made.id) == ["REFUSED"], "also when there is room again"
    assert gateway.kinds("begin_apply") == []
    assert agent.current == "1.0.0" and "SWITCHING" not in agent.steps


async def test_after_the_trouble_a_new_command_is_done(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    with full_disk(agent):
        await beats(gateway, lambda one: one.conditions)
        refused = gateway.send(gateway.command(pb.COMMAND_KIND_RESTART, 1))
        await gateway.until(lambda: gateway.outcomes(refused.id) == ["REFUSED"])
    await beats(gateway, lambda one: not one.conditions)
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 2))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    await beats(gateway, runs("1.1.0", 2))


async def test_a_disk_that_fills_in_a_download_refuses_the_change_and_leaves_no_half_release(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    # Small files still find room, the release does not.
    lift = limit(agent, resource.RLIMIT_FSIZE, 32 * 1024)
    large = gateway.shop.make("1.1.0", PLUGIN_MAIN + "#" + os.urandom(64 * 1024).hex() + "\n")
    update = gateway.send(gateway.update(large, 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["REFUSED"])
    assert gateway.results[-1].detail.startswith("AGENT_DEGRADED: disk_full: ")
    await beats(gateway, lambda one: one.conditions and one.health == HEALTHY)
    assert [path.name for path in (agent.folder / "slots").iterdir() if path.name.endswith(".new")] == []
    lift()
    await beats(gateway, lambda one: not one.conditions)
    again = gateway.send(gateway.update(large, 2))
    await gateway.until(lambda: gateway.outcomes(again.id) == ["APPLIED"])


async def test_without_a_commit_the_way_back_is_taken_on_a_full_disk_and_said_when_there_is_room(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1, dead_man=3.0))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    with full_disk(agent):
        await beats(gateway, lambda one: runs("1.0.0")(one) and one.conditions, 3)
        assert gateway.outcomes(update.id) == ["APPLIED"], "the last word is not said before it is written"
        assert "REVERTED" not in agent.steps
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED", "REVERTED"])
    assert gateway.results[-1].detail == "DEAD_MAN"
    await beats(gateway, lambda one: runs("1.0.0")(one) and not one.conditions)
    assert agent.current == "1.0.0"


async def test_a_way_back_that_was_asked_for_needs_no_disk(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    with full_disk(agent):
        await beats(gateway, lambda one: one.conditions)
        back = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, 1))
        await beats(gateway, runs("1.0.0"), 2)
        assert gateway.outcomes(back.id) == []
    await gateway.until(lambda: gateway.outcomes(back.id) == ["REVERTED"])


async def test_a_commit_waits_for_the_disk(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    with full_disk(agent):
        await beats(gateway, lambda one: one.conditions)
        commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
        await beats(gateway, lambda one: runs("1.1.0", 1)(one) and one.conditions, 5)
        assert gateway.outcomes(commit.id) == []
    await gateway.until(lambda: gateway.outcomes(commit.id) == ["COMMITTED"])
    await agent.kill()
    await agent.start()
    await beats(gateway, runs("1.1.0", 1))


async def test_a_commit_that_the_disk_never_took_is_none_and_that_is_the_answer(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1, dead_man=4.0))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    with full_disk(agent):
        commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
        await beats(gateway, runs("1.0.0"), 2)
    await gateway.until(lambda: gateway.outcomes(commit.id) == ["REVERTED"])
    assert gateway.outcomes(update.id) == ["APPLIED", "REVERTED"]


async def test_an_agent_starts_its_plugin_and_beats_on_a_disk_that_is_full_from_the_beginning(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    await agent.terminate()
    await agent.start()
    with full_disk(agent):
        told = await beats(gateway, lambda one: one.conditions and one.health == HEALTHY, 2)
        assert ("disk_full", str(agent.folder)) in conditions(told)
        health = gateway.send(gateway.command(pb.COMMAND_KIND_HEALTH_CHECK, 0))
        await gateway.until(lambda: gateway.outcomes(health.id) == ["DONE"])
    await beats(gateway, lambda one: not one.conditions)


async def test_a_state_file_that_cannot_be_replaced_is_only_a_condition(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    (agent.folder / "state").unlink()
    (agent.folder / "state").mkdir()
    told = await beats(gateway, lambda one: one.conditions and one.health == HEALTHY, 3)
    assert conditions(told) == {("local_fault", str(agent.folder))}
    (agent.folder / "state").rmdir()
    await beats(gateway, lambda one: not one.conditions)
    assert agent.state["health"] == "healthy"


async def test_without_descriptors_the_plugin_runs_on_and_changes_are_refused(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    pid = agent.state["pid"]
    lift = limit(agent, resource.RLIMIT_NOFILE, FEW_DESCRIPTORS)
    told = await beats(gateway, lambda one: one.conditions and one.health == HEALTHY, 5)
    assert ("too_many_open_files", "the supervisor") in conditions(told)
    restart = gateway.send(gateway.command(pb.COMMAND_KIND_RESTART, 1))
    await gateway.until(lambda: gateway.outcomes(restart.id) == ["REFUSED"])
    assert gateway.results[-1].detail.startswith("AGENT_DEGRADED: too_many_open_files: the supervisor")
    lift()
    await beats(gateway, lambda one: not one.conditions and one.health == HEALTHY)
    assert agent.state["pid"] == pid
    assert all(one.health != DOWN for one in gateway.beats)
    assert gateway.kinds("goodbye") == []


def with_program(shop: Shop, version: str) -> Release:
    """A release that brings the program it is started by."""
    folder = shop.folder / f"source-{version}"
    folder.mkdir()
    (folder / "main.py").write_text(f"RELEASE = {version!r}\nSICK = False\n{PLUGIN_MAIN}")
    (folder / "run").write_text("#!/bin/sh\nexec python3 main.py\n")
    (folder / "run").chmod(0o755)
    artifact = releases.build_archive(folder)
    manifest = releases.describe(artifact, package="tiny", version=version, entrypoint=("./run",), probe=(), smoke=())
    release = Release(version, artifact, releases.sign(manifest, shop.private), manifest.digest)
    shop.stock[release.digest] = release
    return release


async def test_a_program_that_is_missing_is_told_before_somebody_needs_it_and_started_when_it_is_back(
    gateway: Gateway, tmp_path: Path
) -> None:
    agent = AgentProcess(gateway, tmp_path / "program", with_program(gateway.shop, "2.0.0"))
    try:
        await agent.start()
        await beats(gateway, runs("2.0.0"))
        program = agent.folder / "slots" / "a" / "run"
        program.rename(program.with_name("gone"))
        told = await beats(gateway, lambda one: one.conditions and one.health == HEALTHY, 3)
        assert conditions(told) == {("program_missing", "./run")}
        await agent.terminate()
        await agent.start()
        told = await beats(gateway, lambda one: one.conditions and one.health == DOWN, 2)
        assert conditions(told) == {("program_missing", "./run")}
        program.with_name("gone").rename(program)
        await beats(gateway, lambda one: runs("2.0.0")(one) and not one.conditions)
    finally:
        await agent.kill()
        await gateway.until(lambda: not agent.alive())


@pytest.mark.parametrize(("words", "seconds"), [((), None), (("--back-within", "300"), 300.0)])
async def test_a_goodbye_names_how_long_when_somebody_said_so(
    gateway: Gateway, agent: AgentProcess, words: tuple[str, ...], seconds: float | None
) -> None:
    await agent.start(*words)
    await beats(gateway, runs("1.0.0"))
    assert await agent.terminate() == 0
    (last,) = gateway.kinds("goodbye")
    assert last.goodbye.HasField("back_within_duration") is (seconds is not None)
    assert last.goodbye.back_within_duration.ToTimedelta().total_seconds() == (seconds or 0)


@pytest.fixture
def small_disk(agent: AgentProcess) -> Iterator[Path]:
    """The agent's folder on a disk of its own, with room for a few releases."""
    agent.folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(agent.folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounts nothing here")
    try:
        yield agent.folder
    finally:
        subprocess.run(["umount", "--lazy", str(agent.folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes all room there is, to the last byte."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as stream:
        for size in (65536, 4096, 1):
            try:
                while stream.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return filler


async def test_a_disk_without_a_byte_left_hinders_changes_only_until_there_is_room(
    small_disk: Path, gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await beats(gateway, runs("1.0.0"))
    pid = agent.state["pid"]
    filler = fill(small_disk)
    told = await beats(gateway, lambda one: one.conditions and one.health == HEALTHY, 3)
    assert {type_ for type_, _ in conditions(told)} == {"disk_full"}
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["REFUSED"])
    assert gateway.results[-1].detail.startswith("AGENT_DEGRADED: disk_full: ")
    assert gateway.kinds("begin_apply") == []
    filler.unlink()
    await beats(gateway, lambda one: not one.conditions and one.health == HEALTHY)
    assert agent.state["pid"] == pid
    again = gateway.send(gateway.update(gateway.shop.make("1.2.0"), 2))
    await gateway.until(lambda: gateway.outcomes(again.id) == ["APPLIED"])
    filler = fill(small_disk)
    back = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, 2))
    await beats(gateway, runs("1.0.0"), 2)
    filler.unlink()
    await gateway.until(lambda: gateway.outcomes(back.id) == ["REVERTED"])
