"""`prunella dead-letters`: what was given up is listed, named by overview and doctor, and handed out again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices, Plane, Servers
from libs.common.clock import SystemClock
from libs.common.database import Database, Transaction
from libs.common.names import new_id
from tests.service.cli_terminal import Terminal, cli_environment

PARK = (
    "INSERT INTO bus.dead_letters (consumer, event_id, fact, reason, errors, crashes, create_time) "
    "VALUES (:consumer, CAST(:id AS uuid), 'decision_made', 'ValueError: no such release', 8, 0, :now)"
)


@pytest.fixture(scope="module")
async def plane(servers: Servers) -> AsyncIterator[Plane]:
    backing = await BackingServices.make(servers)
    made = Plane(backing, names=["ops"])
    try:
        yield await made.start()
    finally:
        await made.stop()
        await backing.discard()


@pytest.fixture
async def parked(plane: Plane) -> AsyncIterator[list[str]]:
    """Two facts; patcher gave both up, decider the second."""
    events = [new_id(), new_id()]
    owner = Database(plane.backing.url(), clock=SystemClock(), pool_size=1)

    async def park(tx: Transaction) -> None:
        for consumer, event in (("patcher", events[0]), ("patcher", events[1]), ("decider", events[1])):
            await tx.run(PARK, now=tx.now, consumer=consumer, id=event)

    await owner.transaction(park)
    try:
        yield events
    finally:
        await owner.transaction(lambda tx: tx.run("DELETE FROM bus.dead_letters"))
        await owner.close()


@pytest.fixture
def terminal(plane: Plane, tmp_path: Path) -> Terminal:
    named = {f"PRUNELLA_{name.upper()}_ADDRESS": place for name, place in plane.addresses.items()}
    extra = {"PRUNELLA_KEY": plane.key, "DATABASE_URL": plane.backing.url(), "NATS_URL": plane.backing.nats_url}
    return Terminal({**cli_environment(tmp_path), **named, **extra})


async def test_they_are_listed_with_their_reason(terminal: Terminal, parked: list[str]) -> None:
    shown = await terminal("dead-letters")
    assert (shown.code, shown.out.count("ValueError: no such release")) == (0, 3)
    some = await terminal("dead-letters", "--consumer", "decider", "--json")
    assert [(one["consumer"], one["event_id"], one["errors"]) for one in some.json] == [("decider", parked[1], 8)]


async def test_overview_and_doctor_name_the_command(terminal: Terminal, parked: list[str]) -> None:
    attention = (await terminal("overview", "--json")).json["attention"]
    commands = {one["subject"]: one["command"] for one in attention if one["kind"] == "dead_letter"}
    assert commands["patcher"] == "prunella dead-letters list --consumer patcher"
    checks = {one["name"]: one for one in (await terminal("doctor", "--json")).json["checks"]}
    assert checks["dead letters"]["ok"] is False
    assert checks["dead letters"]["remedy"] == "prunella dead-letters"


async def test_one_fact_goes_again_to_everyone_who_gave_it_up(terminal: Terminal, parked: list[str]) -> None:
    answer = await terminal("dead-letters", "redrive", parked[1][-8:])
    assert answer.code == 0, answer.err
    assert sorted(line.split(": ")[1] for line in answer.out.splitlines()) == [
        "decider gets decision_made again",
        "patcher gets decision_made again",
    ]
    assert [one["event_id"] for one in (await terminal("dead-letters", "--json")).json] == [parked[0]]


async def test_all_go_again_when_somebody_agrees(terminal: Terminal, parked: list[str]) -> None:
    asked = await terminal("dead-letters", "redrive", "--all")
    assert asked.code == 2
    assert len((await terminal("dead-letters", "--json")).json) == 3
    agreed = await terminal("dead-letters", "redrive", "--all", "--consumer", "patcher", "--yes")
    assert (agreed.code, len(agreed.out.splitlines())) == (0, 2)
    assert [one["consumer"] for one in (await terminal("dead-letters", "--json")).json] == ["decider"]


@pytest.mark.parametrize("words", [[], ["0000", "--all"]])
async def test_which_ones_must_be_said_once(terminal: Terminal, words: list[str]) -> None:
    answer = await terminal("dead-letters", "redrive", *words)
    assert (answer.code, "name one dead letter, or say --all" in answer.err) == (2, True)


async def test_an_unknown_one_is_said_in_one_line(terminal: Terminal, parked: list[str]) -> None:
    answer = await terminal("dead-letters", "redrive", "ffffffff")
    assert (answer.code, answer.err) == (
        1,
        "prunella: no dead letter begins or ends with 'ffffffff'; see: prunella dead-letters\n",
    )
