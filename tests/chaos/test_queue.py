"""Fifty workers in ten processes, two thousand tasks, kills and pauses at random, tasks that are poison: none is lost.

The seed of the run is printed; PRUNELLA_CHAOS_SEED takes it again. Processes are real, so a killed one leaves its
leases behind and a stopped one wakes up as a zombie that still believes in its leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.testing import BackingServices, Plane, until
from libs.common.names import new_id
from prunella.v1 import queue_pb2 as pb
from prunella.v1.queue_pb2_grpc import QueueServiceStub
from services.queue.leases import MAX_CRASHES
from services.queue.store import task_leases
from services.queue.store.task_leases import Completion
from tests.chaos import invariants, queue_workers
from tests.service.queue_alone import QueueAlone, queue_alone

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(ROOT / place) for place in (".", "protos/gen", "libs/agent"))
TASKS = 2000
POISON = {"hopeless": 6, "hanging": 4, "lethal": 3}
SHAKY = 60
# Eight processes of six workers, and two of one worker that alone have the tools of what kills its process.
CROWDS, EACH, ALONE = 8, 6, 2
HOST, LETHAL = ["host.resolve_names", "host.reach_upstreams"], ["host.certificate", "host.clock_offset"]
MESSAGES = {"lethal": "certificate has expired"}
NETWORK = "connect ECONNREFUSED 10.0.0.7:443"
LONGEST_WORK = 0.5
PAUSE_SECONDS = 6.5
STEP_SECONDS = 1.2
MOST_PAUSED = 2
OPEN = "SELECT count(*) FROM queue.tasks WHERE state IN ('pending', 'processing', 'retrying')"
ENDED = "SELECT split_part(plugin, '-', 1) AS kind, state, count(*) AS number FROM queue.tasks GROUP BY 1, 2"
# A task whose worker was killed three times cannot be told from poison: it goes to a person, as the rule says.
UNLUCKY = """
SELECT split_part(plugin, '-', 1) AS kind, crashes FROM queue.tasks
WHERE state = 'failed' AND (plugin LIKE 'plain-%' OR plugin LIKE 'shaky-%')
"""


@dataclass
class Crowd:
    """The worker processes, each replaced when it is dead, and a hand that kills and stops them at random."""

    plane: Plane
    folder: Path
    chance: random.Random
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    born: int = 0

    async def begin(self, name: str) -> None:
        """A process under a name; its journal is its own."""
        self.born += 1
        alone = name.startswith("alone")
        order = {
            "name": f"{name}.{self.born}", "address": self.plane.addresses["queue"], "key": self.plane.key,
            "count": 1 if alone else EACH, "tools": HOST + LETHAL if alone else HOST,
            "journal": str(self.folder / f"{name}.{self.born}.jsonl"), "seed": self.chance.randrange(2**32),
            "longest": LONGEST_WORK,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.queue_workers", cwd=ROOT, env={**os.environ, "PYTHONPATH": PATHS},
            stdin=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin
        process.stdin.write(json.dumps(order).encode() + b"\n")
        self.processes[name] = process

    async def keep(self) -> None:
        """Replaces whoever died."""
        for name, process in list(self.processes.items()):
            if process.returncode is not None:
                self.stopped.pop(name, None)
                await self.begin(name)

    async def harm(self) -> None:
        """One kill or one pause, somewhere; wakes who slept long enough."""
        now = asyncio.get_running_loop().time()
        for name, since in list(self.stopped.items()):
            if now - since > PAUSE_SECONDS:
                del self.stopped[name]
                self._send(name, signal.SIGCONT)
        awake = [name for name in self.processes if name.startswith("crowd") and name not in self.stopped]
        name = self.chance.choice(awake)
        if len(self.stopped) < MOST_PAUSED and self.chance.random() < 0.5:
            self.stopped[name] = now
            self._send(name, signal.SIGSTOP)
            self.done["pauses"] += 1
        else:
            self._send(name, signal.SIGKILL)
            self.done["kills"] += 1

    def _send(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.processes[name].send_signal(number)

    async def end(self) -> None:
        """Kills every one of them; a stopped process dies all the same."""
        for name, process in self.processes.items():
            self._send(name, signal.SIGKILL)
            await process.wait()


@contextlib.asynccontextmanager
async def a_crowd(plane: Plane, folder: Path, chance: random.Random) -> AsyncIterator[Crowd]:
    crowd = Crowd(plane, folder, chance)
    try:
        names = [f"crowd{number}" for number in range(CROWDS)] + [f"alone{number}" for number in range(ALONE)]
        await asyncio.gather(*(crowd.begin(name) for name in names))
        yield crowd
    finally:
        await crowd.end()


def error_types() -> list[str]:
    """The kind of each task; what is poison comes first, where it could block most."""
    odd = [kind for kind, number in POISON.items() for _ in range(number)] + ["shaky"] * SHAKY
    return odd + ["plain"] * (TASKS - len(odd))


async def enqueue(plane: Plane) -> None:
    """Two thousand errors, each of a plugin of its own, through the front door."""
    queue: Any = QueueServiceStub(plane.channel("queue"))
    wanted = error_types()
    for first in range(0, len(wanted), 500):
        request = pb.ReportErrorsRequest(request_id=new_id(), source="service")
        for number, kind in enumerate(wanted[first : first + 500], first):
            one = request.errors.add(plugin=f"{kind}-{number}", merchant="acme", package="shop", release="1.2.0")
            one.error.id, one.error.type = new_id(), "Error"
            one.error.message = MESSAGES.get(kind, NETWORK)
        await queue.ReportErrors(request, timeout=30)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(240)
async def test_workers_killed_and_stopped_at_random_lose_nothing_and_do_nothing_twice(
    backing: BackingServices, tmp_path: Path
) -> None:
    seed = int(os.environ.get("PRUNELLA_CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PRUNELLA_CHAOS_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(seed)  # noqa: S311 - who is killed, not a secret
    journals = tmp_path / "journals"
    journals.mkdir()
    plane = Plane(backing, names=["queue"], environ={"QUEUE_RETRY_SECONDS": "0.3,0.6"})
    connection = await asyncpg.connect(backing.url())
    try:
        await plane.start()
        await enqueue(plane)
        made = "SELECT count(*) FROM queue.tasks"
        await until(lambda: _is(connection, made, TASKS), 60, what="a task for every report")
        async with a_crowd(plane, journals, chance) as crowd:
            deadline = asyncio.get_running_loop().time() + 180
            while await connection.fetchval(OPEN):
                assert asyncio.get_running_loop().time() < deadline, await connection.fetch(ENDED)
                await crowd.keep()
                await crowd.harm()
                await asyncio.sleep(STEP_SECONDS)
            # Those who still sleep wake up to leases that others have ended.
            await _awake(crowd)
            await until(lambda: _zombies_heard(journals), 20, what="a zombie's completion is refused")
            words = Counter(line["word"] for line in queue_workers.read(journals))
            print(dict(crowd.done), dict(words), f"{crowd.born} processes")  # noqa: T201
        await _check(connection, queue_workers.read(journals), crowd)
    finally:
        await connection.close()
        await plane.stop()


async def _is(connection: asyncpg.Connection, statement: str, number: int) -> bool:
    return bool(await connection.fetchval(statement) == number)


async def _awake(crowd: Crowd) -> None:
    for name in list(crowd.stopped):
        crowd._send(name, signal.SIGCONT)


def _zombies_heard(journals: Path) -> bool:
    return any(line["word"] == "ABORTED" for line in queue_workers.read(journals))


async def _check(connection: asyncpg.Connection, told: list[dict[str, Any]], crowd: Crowd) -> None:
    ended = {(row["kind"], row["state"]): row["number"] for row in await connection.fetch(ENDED)}
    unlucky: Counter[str] = Counter()
    for row in await connection.fetch(UNLUCKY):
        assert row["crashes"] == MAX_CRASHES, f"a {row['kind']} task failed for another reason than its workers' deaths"
        unlucky[row["kind"]] += 1
    assert sum(unlucky.values()) <= TASKS // 100
    good = {"plain": TASKS - SHAKY - sum(POISON.values()), "shaky": SHAKY}
    expected = {(kind, "failed"): number for kind, number in (POISON | unlucky).items()}
    expected |= {(kind, "completed"): number - unlucky[kind] for kind, number in good.items()}
    assert ended == expected
    recorded = [(line["task"], line["token"], line["worker"]) for line in told if line["word"] == "recorded"]
    assert await invariants.one_owner(connection, recorded) == []
    words = {line["word"] for line in told}
    assert words == {"took", "recorded", "ABORTED"}, "every other answer would be a surprise"
    assert crowd.done["kills"] >= 5 and crowd.done["pauses"] >= 3
    given = await connection.fetchval("SELECT count(*) FROM queue.reports WHERE state = 'escalated'")
    assert given == sum(POISON.values()) + sum(unlucky.values()), "what is poison ends at a person"


# ---- the checker itself: each breach is made by taking one part out of the real statements


@pytest.fixture
async def queue(backing: BackingServices) -> AsyncIterator[QueueAlone]:
    async with queue_alone(backing) as alone:
        yield alone


def broken(monkeypatch: pytest.MonkeyPatch, name: str, part: str, instead: str = "") -> None:
    statement = getattr(task_leases, name)
    assert part in statement, f"{name} is not what it was"
    monkeypatch.setattr(task_leases, name, statement.replace(part, instead))


async def claimed(queue: QueueAlone, worker: str) -> pb.LeasedTask:
    request = pb.ClaimTasksRequest(worker=worker, any_tools=True, omit_details=True)
    (leased,) = (await queue.worker.ClaimTasks(request, timeout=5)).tasks
    return leased  # type: ignore[no-any-return]


async def completed(queue: QueueAlone, leased: pb.LeasedTask) -> None:
    end = pb.CompleteTaskRequest(name=leased.task.name, token=leased.token, success=True, method="chaos")
    await queue.worker.CompleteTask(end, timeout=5)


async def complaints(backing: BackingServices, *recorded: tuple[pb.LeasedTask, str]) -> list[str]:
    connection = await asyncpg.connect(backing.url())
    try:
        yes = [(leased.task.name.removeprefix("tasks/"), leased.token, worker) for leased, worker in recorded]
        return await invariants.one_owner(connection, yes)
    finally:
        await connection.close()


async def lapsed(queue: QueueAlone) -> tuple[pb.LeasedTask, pb.LeasedTask]:
    """A lease that lapsed, and the one another worker has on the same task since."""
    (outcome,) = await queue.report(queue.error())
    await until(lambda: queue.plane.sql("SELECT 1 FROM queue.tasks"), what=f"a task for {outcome.report}")
    early = await claimed(queue, "early")
    queue.after(31)
    await queue.task_comes_to(early.task.name, "pending")
    return early, await claimed(queue, "late")


class Believed:
    """A row under another token."""

    def __init__(self, row: Any, token: int) -> None:
        self._row, self.token = row, token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


def believe_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes out the second look as well: whatever ended is taken for what was asked."""
    complete = task_leases.complete

    async def believing(tx: Any, completions: Sequence[Completion], **more: Any) -> list[Any]:
        asked = {one.task: one.token for one in completions}
        ended = await complete(tx, completions, **more)
        return [Believed(row, asked[str(row.id)]) for row in ended]

    monkeypatch.setattr(task_leases, "complete", believing)


async def test_a_queue_without_its_fence_is_found_out(
    backing: BackingServices, queue: QueueAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, _late = await lapsed(queue)
    assert await complaints(backing) == []
    broken(monkeypatch, "COMPLETE", "t.token = g.token", "true")
    believe_everybody(monkeypatch)
    await completed(queue, early)
    (complaint,) = await complaints(backing, (early, "early"))
    assert f"token {early.token} ended 2 times: taken back, completed" in complaint


async def test_a_claim_that_takes_what_others_hold_is_found_out(
    backing: BackingServices, queue: QueueAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, late = await lapsed(queue)
    broken(monkeypatch, "CLAIM", "state = 'pending'", "state IN ('pending', 'processing')")
    greedy = await claimed(queue, "greedy")
    assert greedy.task.name == late.task.name
    (complaint,) = await complaints(backing)
    assert complaint.endswith("two owners")


async def test_a_claim_that_does_not_raise_the_token_is_found_out(
    backing: BackingServices, queue: QueueAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "CLAIM", "token = t.token + 1", "token = 1")
    early, late = await lapsed(queue)
    assert early.token == late.token
    await completed(queue, early)
    found = await complaints(backing, (early, "early"))
    assert any("was given to " in one and "early" in one and "late" in one for one in found), found
    assert any("ended 2 times" in complaint for complaint in found)


async def test_a_completion_that_does_not_look_at_the_state_is_found_out(
    backing: BackingServices, queue: QueueAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, late = await lapsed(queue)
    await completed(queue, late)
    assert await complaints(backing, (late, "late")) == []
    broken(monkeypatch, "COMPLETE", "t.lease_expire_time IS NOT NULL", "true")
    await completed(queue, late)
    found = await complaints(backing, (late, "late"))
    assert any("ended 2 times: completed, completed" in complaint for complaint in found)
    assert any("done 2 times" in complaint for complaint in found)
