"""Errands end: what cannot be done, what cannot be settled, and what cannot even be given up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import structlog

from deploy.local.testing import BackingServices
from libs.common.clock import ManualClock
from libs.common.database import Database, Transaction
from libs.common.errands import Errand, Errands, Runner, send
from libs.common.errors import Unavailable
from libs.common.telemetry import Telemetry

ATTEMPTS = 3
LATER = timedelta(seconds=60)  # longer than any delay and lease


@dataclass
class Asked:
    """What an errand of the test does, and how often it did."""

    clock: ManualClock
    database: Database
    answer: dict[str, Any] = field(default_factory=dict)
    settling: Exception | None = None
    failing: Exception | None = None
    ran: int = 0
    settled: int = 0
    failures: list[str] = field(default_factory=list)

    def errands(self) -> Errands:
        runner = Runner(self.run, self.settle, self.failed, attempts=ATTEMPTS)
        return Errands(self.database, "decider", {"ask": runner}, None, Telemetry("decider"))

    async def run(self, _ctx: Any, _errand: Errand) -> dict[str, Any]:
        self.ran += 1
        return self.answer

    async def settle(self, _ctx: Any, _tx: Transaction, _errand: Errand, _answer: dict[str, Any]) -> None:
        if self.settling:
            raise self.settling
        self.settled += 1

    async def failed(self, _ctx: Any, _tx: Transaction, _errand: Errand, why: str) -> None:
        self.failures.append(why)
        if self.failing:
            raise self.failing

    async def end(self) -> Any:
        """Does the errand until it is pending no more, at most 50 times; returns its row."""
        await self.database.transaction(lambda tx: send(tx, "decider", "ask", "incident-1", {}))
        errands = self.errands()
        for _ in range(50):
            if not await errands.run_once():
                break
            self.clock.advance(LATER.total_seconds())
        async with self.database.reading() as reading:
            return await reading.first("SELECT state, error, attempts, answer FROM decider.errands")


@pytest.fixture
async def asked(backing: BackingServices) -> AsyncIterator[Asked]:
    clock = ManualClock()
    database = Database(backing.url("decider"), clock=clock)
    yield Asked(clock, database)
    await database.close()


async def test_an_errand_is_done_once(asked: Asked) -> None:
    row = await asked.end()
    assert (row.state, row.attempts, asked.ran, asked.settled, asked.failures) == ("done", 1, 1, 1, [])


async def test_one_whose_settling_fails_has_been_tried_and_ends_with_the_reason(asked: Asked) -> None:
    asked.settling = ValueError("the attempt is of another kind")
    row = await asked.end()
    assert (row.state, row.attempts, asked.ran) == ("failed", ATTEMPTS, ATTEMPTS)
    assert "the attempt is of another kind" in row.error
    assert asked.failures == [row.error]


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"], ids=["NUL", "surrogate"])
async def test_one_whose_answer_the_database_does_not_take_ends_with_the_reason(asked: Asked, text: str) -> None:
    asked.answer = {"why": text}
    row = await asked.end()
    assert (row.state, asked.ran, asked.settled) == ("failed", ATTEMPTS, 0)
    assert len(asked.failures) == 1


async def test_a_reason_that_the_database_does_not_take_is_cleaned(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.settling = ValueError("bad\x00 \ud800\x1b[31m luck")
    # Whoever collects what a test logs may not take such a text either.
    logged = structlog.testing.CapturingLogger()
    monkeypatch.setattr("libs.common.errands.log", logged)
    row = await asked.end()
    assert "errand_not_settled" in {call.args[0] for call in logged.calls}
    assert row.state == "failed"
    assert row.error == "ValueError: bad\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER} luck"


async def test_one_that_cannot_even_be_given_up_ends_all_the_same_and_is_not_done_again(asked: Asked) -> None:
    asked.settling, asked.failing = ValueError("bad luck"), KeyError("worse luck")
    row = await asked.end()
    assert row.state == "failed"
    assert "bad luck" in row.error
    assert asked.ran == ATTEMPTS, "what has had its tries costs nothing more"
    assert ATTEMPTS < row.attempts <= 2 * ATTEMPTS


async def test_a_database_that_was_away_while_it_was_settled_is_no_failure(asked: Asked) -> None:
    asked.settling = Unavailable("the database is away", reason="DATABASE_UNAVAILABLE")
    await asked.database.transaction(lambda tx: send(tx, "decider", "ask", "incident-1", {}))
    for _ in range(ATTEMPTS + 1):
        assert await asked.errands().run_once() == 1
        asked.clock.advance(LATER.total_seconds())
    asked.settling = None
    await asked.errands().run_once()
    assert (asked.settled, asked.failures) == (1, [])


async def test_one_that_finds_the_database_away_each_time_it_is_settled_ends_too(asked: Asked) -> None:
    asked.settling = Unavailable("the statement took too long", reason="DATABASE_UNAVAILABLE")
    row = await asked.end()
    assert (row.state, asked.ran, len(asked.failures)) == ("failed", 2 * ATTEMPTS, 1)
