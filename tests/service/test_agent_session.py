"""The session against a fake plane: nothing handed over is lost, whatever happens to the stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import SystemClock
from prunella_agent.credential import Credential
from prunella_agent.error_counters import ErrorCounters
from prunella_agent.session import Session, open_channel
from tests.service.agent_gateway import Gateway, Shop

QUICK = (0.05, 0.2)


@pytest.fixture(autouse=True)
def all_words(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever ran before in this process may have told the agent to be quiet."""
    caplog.set_level(logging.INFO, logger="prunella_agent")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    plane = Gateway(Shop(tmp_path))
    await plane.start()
    yield plane
    await plane.stop()


async def ignore(_: pb.Command) -> None:
    """Takes a command over and does nothing."""


def session(gateway: Gateway, **changes: Any) -> Session:
    options: dict[str, Any] = {"hello": pb.Hello, "on_command": ignore, "backoff": QUICK}
    return Session(gateway.address, Credential("p1", "s1"), **{**options, **changes})


async def test_what_was_not_acknowledged_goes_out_again_after_a_cut(gateway: Gateway) -> None:
    gateway.acknowledge = False
    one = session(gateway)
    one.start()
    for n in range(3):
        one.beat(pb.Beat(errors=n))
    await gateway.until(lambda: len(gateway.beats) == 3)
    gateway.acknowledge = True
    gateway.end_streams()
    await gateway.until(lambda: one.pending_beats == 0)
    assert [b.sequence for b in gateway.beats] == [1, 2, 3, 1, 2, 3]
    assert one.beats_acknowledged == 3 and one.epoch == 2
    await one.stop()


async def test_a_word_on_a_command_goes_out_after_the_beats_before_it(gateway: Gateway) -> None:
    one = session(gateway)
    for n in range(3):
        one.beat(pb.Beat(errors=n))
    one.report(pb.CommandResult(command="c", outcome=pb.COMMAND_OUTCOME_REVERTED))
    one.beat(pb.Beat(errors=9))
    one.start()
    await gateway.until(lambda: one.pending_beats == 0 and gateway.results)
    received = [said.message.WhichOneof("message") for said in gateway.received]
    assert [kind for kind in received if kind in {"beat", "result"}] == ["beat"] * 3 + ["result", "beat"]
    await one.stop()


async def test_beats_wait_for_credits_and_results_do_not(gateway: Gateway) -> None:
    gateway.acknowledge, gateway.credits = False, 2
    one = session(gateway)
    one.start()
    await gateway.until(lambda: one.connected)
    for _ in range(5):
        one.beat(pb.Beat())
    one.report(pb.CommandResult(command="c", outcome=pb.COMMAND_OUTCOME_DONE))
    await gateway.until(lambda: gateway.outcomes("c"))
    assert len(gateway.beats) == 2
    gateway.send_to_all(pb.ConnectResponse(ack=pb.BeatAck(boot_id=one.boot_id, sequence=2)))
    await gateway.until(lambda: len(gateway.beats) == 4)
    await one.stop()


async def test_a_result_is_repeated_until_it_is_acknowledged(gateway: Gateway) -> None:
    acknowledged: list[str] = []
    gateway.acknowledge_results = False
    one = session(gateway, on_result_ack=lambda ack: acknowledged.append(ack.command))
    one.start()
    one.report(pb.CommandResult(command="c", outcome=pb.COMMAND_OUTCOME_DONE))
    await gateway.until(lambda: len(gateway.results) == 1)
    gateway.end_streams()
    await gateway.until(lambda: len(gateway.results) == 2)
    gateway.acknowledge_results = True
    gateway.end_streams()
    await gateway.until(lambda: acknowledged == ["c"])
    gateway.end_streams()
    one.beat(pb.Beat())
    await gateway.until(lambda: one.pending_beats == 0)
    assert len(gateway.results) == 3
    await one.stop()


async def test_a_rejected_beat_is_dropped_and_told_once(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    gateway.acknowledge = False
    one = session(gateway)
    one.start()
    for _ in range(2):
        one.beat(pb.Beat())
    await gateway.until(lambda: len(gateway.beats) == 2)
    for sequence in (1, 2):
        rejection = pb.Rejection(boot_id=one.boot_id, sequence=sequence, reason="NOT_FINITE", field="numbers")
        gateway.send_to_all(pb.ConnectResponse(rejection=rejection))
    await gateway.until(lambda: one.pending_beats == 0)
    assert caplog.text.count("NOT_FINITE") == 1
    await one.stop()


async def test_a_command_that_could_not_be_taken_over_gets_no_receipt(gateway: Gateway) -> None:
    seen: list[str] = []

    async def fails_once(command: pb.Command) -> None:
        seen.append(command.id)
        if len(seen) == 1:
            raise OSError("the disk is full")

    one = session(gateway, on_command=fails_once)
    one.start()
    await gateway.until(lambda: one.connected)
    gateway.send(gateway.command(pb.COMMAND_KIND_RESTART, 1))
    await gateway.until(lambda: len(seen) == 1)
    gateway.end_streams()
    await gateway.until(lambda: gateway.kinds("received"))
    assert len(seen) == 2 and not gateway.desired
    await one.stop()


async def test_a_permit_asked_for_on_a_lost_stream_is_asked_for_on_the_next(gateway: Gateway) -> None:
    one = session(gateway)
    one.start()
    await gateway.until(lambda: one.connected)
    gateway.end_streams()
    answer = await one.begin_apply(pb.Command(id="c", fence=1))
    assert answer.granted and answer.permit == "p"
    await one.stop()


async def test_no_answer_is_no(gateway: Gateway) -> None:
    gateway.grant = lambda _: None
    one = session(gateway)
    one.start()
    answer = await one.begin_apply(pb.Command(id="c", fence=1))
    assert (answer.granted, answer.gate) == (False, "NO_ANSWER")
    await one.stop()


async def test_a_yes_is_none_when_the_agents_own_clock_says_it_took_too_long(gateway: Gateway) -> None:
    class Jumping(SystemClock):
        ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    clock = Jumping()

    def grant(_: pb.BeginApply) -> pb.Permit:
        clock.ahead = 5.0
        return pb.Permit(granted=True)

    gateway.grant = grant
    one = session(gateway, clock=clock)
    one.start()
    answer = await one.begin_apply(pb.Command(id="c", fence=1))
    assert (answer.granted, answer.gate) == (False, "NO_ANSWER")
    await one.stop()


async def test_it_comes_back_when_the_plane_says_and_not_before(gateway: Gateway) -> None:
    one = session(gateway)
    one.start()
    await gateway.until(lambda: one.connected)
    loop = asyncio.get_running_loop()
    disconnect = pb.Disconnect(reason="DRAIN")
    disconnect.retry_delay.FromSeconds(1)
    gateway.send_to_all(pb.ConnectResponse(disconnect=disconnect))
    began = loop.time()
    gateway.end_streams()
    await gateway.until(lambda: one.epoch == 2)
    assert loop.time() - began >= 0.95
    await one.stop()


async def test_a_wrong_secret_is_told_once(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    one = Session(gateway.address, Credential("p1", "no"), hello=pb.Hello, on_command=ignore, backoff=QUICK)
    one.start()
    await gateway.until(lambda: gateway.refused >= 3)
    assert caplog.text.count("UNAUTHENTICATED") == 1
    await one.stop()


async def test_an_artifact_is_fetched_whole_and_never_more_than_was_said(gateway: Gateway) -> None:
    release = gateway.shop.make("9.0.0", main="x = 1\n" * 5000)
    one = session(gateway)
    assert await one.fetch_artifact(release.digest, len(release.artifact)) == release.artifact
    assert len(await one.fetch_artifact(release.digest, 10)) <= 10 + 1000
    await one.abort()


async def test_hundreds_of_sessions_share_a_channel_and_all_of_them_survive_the_planes_death(
    gateway: Gateway,
) -> None:
    channel = open_channel(gateway.address)
    fleet = [session(gateway, channel=channel) for _ in range(300)]
    for one in fleet:
        one.start()
        one.beat(pb.Beat())
    await gateway.until(lambda: all(one.beats_acknowledged == 1 for one in fleet), 30)
    await gateway.stop()
    for one in fleet:
        one.beat(pb.Beat())
    await gateway.start()
    await gateway.until(lambda: all(one.beats_acknowledged == 2 for one in fleet), 30)
    await asyncio.gather(*(one.abort() for one in fleet))
    await channel.close()


async def test_errors_are_told_until_acknowledged_and_beats_do_not_wait_for_them(gateway: Gateway) -> None:
    one = session(gateway, errors=ErrorCounters(pace=0.1, again=(0.3, 1.0)))
    one.start()
    for _ in range(3):
        one.report_errors(pb.ErrorReport(type="T", message="no cart"))
    await gateway.until(lambda: len(gateway.kinds("errors")) >= 2)
    one.beat(pb.Beat())
    await gateway.until(lambda: one.pending_beats == 0)
    gateway.end_streams()
    await gateway.until(lambda: one.epoch == 2)
    one.report_errors(pb.ErrorReport(type="T", message="no cart"))
    gateway.acknowledge_errors = True
    await gateway.until(lambda: one.errors.pending == 0)
    told = [message.errors for message in gateway.kinds("errors")]
    assert told[-1].reports[0].occurrences == 4
    assert len({report.id for message in told for report in message.reports}) == 1
    await one.stop()


async def test_errors_without_an_acknowledgement_go_out_at_once_on_a_new_stream(gateway: Gateway) -> None:
    one = session(gateway, errors=ErrorCounters(pace=0.1, again=(600.0, 600.0)))
    one.start()
    one.report_errors(pb.ErrorReport(type="T", message="no cart"))
    await gateway.until(lambda: gateway.kinds("errors"))
    gateway.acknowledge_errors = True
    gateway.end_streams()
    await gateway.until(lambda: one.errors.pending == 0)
    await one.stop()


async def test_a_goodbye_tells_the_last_errors_first(gateway: Gateway) -> None:
    gateway.acknowledge_errors = True
    one = session(gateway)
    one.start()
    one.report_errors(pb.ErrorReport(type="T", message="first"))
    await gateway.until(lambda: one.errors.pending == 0 and one.connected)
    one.report_errors(pb.ErrorReport(type="T", message="last"))
    await one.stop()
    kinds = [received.message.WhichOneof("message") for received in gateway.received]
    assert kinds[-2:] == ["errors", "goodbye"]
