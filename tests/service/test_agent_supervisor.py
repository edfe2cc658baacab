"""The supervisor as a real process against a fake plane: enrols, beats, updates, commits, goes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prunella.v1 import agent_pb2 as pb
from tests.service.agent_gateway import PLUGIN_MAIN, AgentProcess, Gateway, Shop

HEALTHY, DOWN = pb.HEALTH_HEALTHY, pb.HEALTH_DOWN


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    plane = Gateway(Shop(tmp_path))
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def agent(gateway: Gateway, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    process = AgentProcess(gateway, tmp_path / "agent", gateway.shop.make("1.0.0"))
    yield process
    await process.kill()
    await gateway.until(lambda: not process.alive())


async def healthy(gateway: Gateway, release: str, generation: int = 0) -> None:
    """Waits for a healthy beat of a release after now."""
    seen = len(gateway.beats)
    await gateway.until(
        lambda: any((b.release, b.generation, b.health) == (release, generation, HEALTHY) for b in gateway.beats[seen:])
    )


async def test_it_enrols_once_runs_the_release_and_beats_healthy(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    beat = gateway.beats[-1]
    assert beat.digest == next(iter(gateway.shop.stock))
    assert beat.environment["runtime"].startswith("python")
    assert beat.uptime.ToTimedelta().total_seconds() > 0
    assert (agent.folder / "credential.json").stat().st_mode & 0o777 == 0o600
    assert await agent.terminate() == 0
    assert gateway.kinds("goodbye")
    assert not agent.alive()
    await agent.start()
    await healthy(gateway, "1.0.0")
    assert len(gateway.enrolled) == 1
    assert len({b.boot_id for b in gateway.beats}) == 2


async def test_a_lost_enrolment_answer_is_asked_for_again_with_the_same_key(
    gateway: Gateway, agent: AgentProcess
) -> None:
    gateway.enroll_failures = 1
    await agent.start()
    await healthy(gateway, "1.0.0")
    assert len(gateway.enrolled) == 2
    assert gateway.enrolled[0].enrollment_key == gateway.enrolled[1].enrollment_key != ""


async def test_a_bad_token_ends_the_supervisor_with_the_reason(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start(token="bad")
    assert await agent.ended() == 1
    assert "UNAUTHENTICATED unknown token" in (agent.folder.parent / "agent.log").read_text()


async def test_figures_of_the_plugin_never_shrink_over_its_restarts(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    await agent.post(7)
    await gateway.until(lambda: gateway.beats[-1].webhook_failures == 7)
    assert gateway.beats[-1].failing_inputs == ["s", "s", "s"] or any(b.failing_inputs for b in gateway.beats)
    gateway.send(gateway.command(pb.COMMAND_KIND_RESTART, 1))
    await healthy(gateway, "1.0.0", 1)
    await agent.post(2)
    await gateway.until(lambda: gateway.beats[-1].webhook_failures == 9)
    failures = [b.webhook_failures for b in gateway.beats]
    assert failures == sorted(failures)


async def test_an_update_is_applied_committed_and_said(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    await healthy(gateway, "1.1.0", 1)
    commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
    await gateway.until(lambda: gateway.outcomes(commit.id) == ["COMMITTED"])
    assert agent.current == "1.1.0"
    applied = next(r for r in gateway.results if r.outcome == pb.COMMAND_OUTCOME_APPLIED)
    names = [span.name for span in applied.spans]
    assert names == ["receive", "verify", "fetch", "unpack", "begin_apply", "switch", "start", "settle"]
    assert all(span.traceparent == update.traceparent for span in applied.spans)
    assert agent.steps[:5] == ["SLOT_CLEARED", "INSTALLED", "RECEIVED", "SWITCHING", "SWITCHED"]
    await agent.kill()
    await agent.start()
    await healthy(gateway, "1.1.0", 1)


async def test_a_command_that_comes_again_gets_the_word_and_has_no_second_effect(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.update(gateway.shop.make("1.1.0"), 1)
    for _ in range(3):
        gateway.send(update)
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    before = len(gateway.results)
    gateway.send(update)
    await gateway.until(lambda: len(gateway.results) > before)
    assert gateway.outcomes(update.id) == ["APPLIED"]
    assert agent.steps.count("SWITCHING") == 1
    assert len(gateway.kinds("begin_apply")) == 1


async def test_a_lower_fence_is_refused_also_after_a_restart(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    old = gateway.command(pb.COMMAND_KIND_RESTART, 1)
    check = gateway.send(gateway.command(pb.COMMAND_KIND_HEALTH_CHECK, 0))
    await gateway.until(lambda: gateway.outcomes(check.id) == ["DONE"])
    await agent.kill()
    await agent.start()
    gateway.send(old)
    await gateway.until(lambda: gateway.outcomes(old.id) == ["REFUSED"])
    assert gateway.results[-1].detail == "FENCE"
    assert "SWITCHING" not in agent.steps


async def test_without_a_permit_nothing_is_switched(gateway: Gateway, agent: AgentProcess) -> None:
    gateway.grant = lambda _: pb.Permit(granted=False, gate="KILL_SWITCH")
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["REFUSED"])
    assert gateway.results[-1].detail == "KILL_SWITCH"
    assert agent.current == "1.0.0" and "SWITCHING" not in agent.steps


async def test_while_nobody_can_decide_it_asks_again_without_haste(gateway: Gateway, agent: AgentProcess) -> None:
    asked: list[float] = []

    def away_at_first(_: pb.BeginApply) -> pb.Permit:
        asked.append(asyncio.get_running_loop().time())
        return pb.Permit(granted=len(asked) == 3, gate="" if len(asked) == 3 else "NO_ANSWER")

    gateway.grant = away_at_first
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    assert len(asked) == 3 and asked[2] - asked[0] > 0.8


async def test_a_yes_that_comes_after_five_seconds_is_no_yes(gateway: Gateway, agent: AgentProcess) -> None:
    asked: list[pb.BeginApply] = []

    def late(question: pb.BeginApply) -> pb.Permit | None:
        asked.append(question)
        if len(asked) > 1:
            return pb.Permit(granted=False, gate="KILL_SWITCH")
        permit = pb.Permit(command=question.command, nonce=question.nonce, granted=True)
        asyncio.get_running_loop().call_later(5.3, gateway.send_to_all, pb.ConnectResponse(permit=permit))
        return None

    gateway.grant = late
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["REFUSED"])
    assert asked[0].nonce != asked[1].nonce
    assert "SWITCHING" not in agent.steps


async def test_a_yes_that_an_agent_slept_over_is_no_yes(gateway: Gateway, agent: AgentProcess) -> None:
    asked: list[str] = []

    def freeze(question: pb.BeginApply) -> pb.Permit:
        asked.append(question.nonce)
        assert agent.process
        if len(asked) > 1:
            return pb.Permit(granted=False, gate="KILL_SWITCH")
        agent.process.send_signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(5.5, agent.process.send_signal, signal.SIGCONT)
        return pb.Permit(granted=True)

    gateway.grant = freeze
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["REFUSED"])
    assert len(asked) == 2 and "SWITCHING" not in agent.steps


async def test_an_altered_artifact_and_a_missing_signature_are_refused(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    good = gateway.shop.make("1.1.0")
    good.artifact = good.artifact[:-1] + b"x"
    altered = gateway.send(gateway.update(good, 1))
    await gateway.until(lambda: gateway.outcomes(altered.id) == ["FAILED"])
    assert gateway.results[-1].detail.startswith("DIGEST_MISMATCH")
    gateway.shop.private[1] = gateway.shop.private[0]
    single = gateway.send(gateway.update(gateway.shop.make("1.2.0"), 2))
    await gateway.until(lambda: gateway.outcomes(single.id) == ["FAILED"])
    assert gateway.results[-1].detail.startswith("SIGNATURE_MISSING")
    assert not gateway.kinds("begin_apply")


async def test_a_rollback_takes_back_a_trial_and_also_a_committed_release(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    for generation in (1, 2):
        release = gateway.shop.make(f"1.{generation}.0")
        update = gateway.send(gateway.update(release, generation))
        await gateway.until(lambda name=update.id: gateway.outcomes(name) == ["APPLIED"])
        if generation == 2:
            commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 2))
            await gateway.until(lambda name=commit.id: gateway.outcomes(name) == ["COMMITTED"])
        back = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, generation))
        await gateway.until(lambda name=back.id: gateway.outcomes(name) == ["REVERTED"])
        await healthy(gateway, "1.0.0", 0)
        assert agent.current == "1.0.0"
    late = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 2))
    await gateway.until(lambda: gateway.outcomes(late.id) == ["REVERTED"])


async def test_a_rollback_of_what_was_never_applied_ends_its_preparation(gateway: Gateway, agent: AgentProcess) -> None:
    gateway.grant = lambda _: None
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.kinds("begin_apply"))
    back = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, 1))
    await gateway.until(lambda: gateway.outcomes(back.id) == ["REVERTED"] and gateway.outcomes(update.id) == ["FAILED"])
    assert agent.current == "1.0.0" and "SWITCHING" not in agent.steps


async def test_a_switch_without_commit_is_taken_back_though_the_plane_has_vanished(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1, dead_man=2.0))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    await gateway.stop()
    await gateway.until(lambda: agent.current == "1.0.0" and "REVERTED" in agent.steps)
    await gateway.start()
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED", "REVERTED"], 40)
    last = [r for r in gateway.results if r.outcome == pb.COMMAND_OUTCOME_REVERTED][-1]
    assert last.unsolicited and last.detail == "DEAD_MAN" and last.release == "1.0.0"
    await healthy(gateway, "1.0.0", 0)


async def test_a_release_that_does_not_start_is_taken_back_at_once(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0", "raise SystemExit(3)\n"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["REVERTED"])
    assert gateway.results[-1].unsolicited and gateway.results[-1].detail == "DID_NOT_START"
    await healthy(gateway, "1.0.0", 0)


async def test_a_dead_plugin_is_told_and_only_a_restart_command_brings_it_back(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    os.kill(agent.state["pid"], signal.SIGKILL)
    await gateway.until(lambda: gateway.beats[-1].health == DOWN)
    await gateway.until(lambda: [b.health for b in gateway.beats[-3:]] == [DOWN] * 3)
    restart = gateway.send(gateway.command(pb.COMMAND_KIND_RESTART, 1))
    await gateway.until(lambda: gateway.outcomes(restart.id) == ["APPLIED"])
    await healthy(gateway, "1.0.0", 1)
    commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
    await gateway.until(lambda: gateway.outcomes(commit.id) == ["COMMITTED"])


async def test_a_sick_plugin_is_unhealthy_and_a_health_check_says_so(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0", sick=True), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    check = gateway.send(gateway.command(pb.COMMAND_KIND_HEALTH_CHECK, 1))
    await gateway.until(lambda: gateway.outcomes(check.id) == ["FAILED"])
    assert gateway.results[-1].detail == "unhealthy"


async def test_results_are_kept_over_a_death_until_they_are_acknowledged(gateway: Gateway, agent: AgentProcess) -> None:
    gateway.acknowledge_results = False
    await agent.start()
    await healthy(gateway, "1.0.0")
    check = gateway.send(gateway.command(pb.COMMAND_KIND_HEALTH_CHECK, 0))
    await gateway.until(lambda: gateway.outcomes(check.id) == ["DONE"])
    await agent.kill()
    count = len(gateway.results)
    gateway.acknowledge_results = True
    await agent.start()
    await gateway.until(lambda: len(gateway.results) > count)
    await gateway.until(lambda: "ACKNOWLEDGED" in agent.steps)


async def test_an_enrolled_agent_runs_its_plugin_without_a_plane(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    await agent.terminate()
    await gateway.stop()
    (agent.folder / "state").unlink()
    await agent.start()
    await gateway.until(lambda: (agent.folder / "state").exists() and agent.state["health"] == "healthy")
    assert not agent.state["connected"]


async def test_it_can_be_ended_while_it_waits_to_enrol(gateway: Gateway, agent: AgentProcess) -> None:
    await gateway.stop()
    await agent.start()
    await gateway.until((agent.folder / "enrollment.json").exists)
    assert await agent.terminate() == 0


async def test_asked_to_end_twice_it_ends_at_once_and_so_does_the_plugin(gateway: Gateway, tmp_path: Path) -> None:
    stubborn = PLUGIN_MAIN.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
    process = AgentProcess(gateway, tmp_path / "stubborn", gateway.shop.make("2.0.0", stubborn))
    await process.start()
    await healthy(gateway, "2.0.0")
    assert process.process
    process.process.terminate()
    await gateway.until(lambda: gateway.kinds("goodbye"))
    process.process.terminate()
    assert await process.ended(3) in (0, 1)
    await gateway.until(lambda: not process.alive())


async def test_a_person_can_put_another_release_into_place(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    await agent.terminate()
    agent.archive = gateway.shop.put(gateway.shop.make("0.9.0"))
    await agent.start("--reinstall")
    await healthy(gateway, "0.9.0", 0)
    assert agent.current == "0.9.0"
    await agent.terminate()
    agent.archive.with_name(agent.archive.name + ".dsse").write_bytes(b"{}")
    await agent.start("--reinstall")
    assert await agent.ended() == 1


async def test_a_second_supervisor_in_the_folder_is_turned_away(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    first = agent.process
    await agent.start()
    assert await agent.ended() == 1
    agent.process = first


async def test_the_plugin_and_what_it_started_do_not_outlive_a_killed_supervisor(
    gateway: Gateway, tmp_path: Path
) -> None:
    child = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    process = AgentProcess(gateway, tmp_path / "family", gateway.shop.make("2.0.0", child + PLUGIN_MAIN))
    await process.start()
    await healthy(gateway, "2.0.0")
    assert len(process.alive()) == 2
    await process.kill()
    old = set(process.alive())
    await process.start()
    await healthy(gateway, "2.0.0")
    assert not old & set(process.alive())
    assert await process.terminate() == 0
    assert not process.alive()
