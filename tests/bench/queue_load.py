"""The load of the queue's measurements, in a process of its own: what workers and reporters ask over gRPC.

An order names one shape: `drain` (batches claimed and completed until nothing waits), `single` (one task at a time,
beside the raw claim on a connection to the same rows, turn by turn), `reports` (errors in batches), `report` (one new
error at a time), `stats`. The answer is figures; times are milliseconds as the caller sees them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import uvloop

from libs.common import rpc
from libs.common.names import new_id
from prunella.v1 import queue_pb2 as pb
from prunella.v1 import queue_pb2_grpc
from tests.bench.backing import percentile

LEASE_SECONDS = 300
# The least a claim can be: one statement that commits by itself, no token, no counts, no fact.
RAW_CLAIM = """
UPDATE queue.tasks SET state = 'processing', worker = 'raw', lease_expire_time = $2, claim_time = $2, update_time = $2
WHERE id = (
    SELECT id FROM queue.tasks WHERE toolset = $1 AND state = 'pending' ORDER BY rank, id LIMIT 1
    FOR UPDATE SKIP LOCKED)
RETURNING id, report, token
"""


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds of values in seconds."""
    return {"p50_ms": round(1000 * percentile(values, 0.5), 3), "p99_ms": round(1000 * percentile(values, 0.99), 3)}


@dataclass
class Load:
    """One shape against one queue. `tools` are what the worker has; `count` is how much is asked."""

    address: str
    key: str
    shape: str
    count: int = 0
    batch: int = 1
    workers: int = 1
    tools: list[str] = field(default_factory=list)
    database: str = ""
    caller: str = "worker"

    async def run(self) -> dict[str, Any]:
        """The figures of the shape."""
        shape: Callable[[], Awaitable[dict[str, Any]]] = {
            "drain": self.drain, "single": self.single, "reports": self.reports, "report": self.report,
            "stats": self.stats,
        }[self.shape]  # fmt: skip
        return await shape()

    def stub(self) -> Any:
        """A stub on a channel of its own."""
        return queue_pb2_grpc.QueueServiceStub(rpc.channel(self.address, caller=self.caller, key=self.key))

    def claim(self, worker: int) -> pb.ClaimTasksRequest:
        """What a worker asks for."""
        asked = pb.ClaimTasksRequest(
            worker=f"bench-{worker}", max_tasks=self.batch, tools=self.tools, omit_details=True
        )
        asked.lease_duration.FromSeconds(LEASE_SECONDS)
        return asked

    async def drain(self) -> dict[str, Any]:
        """Claims and completes until nothing waits: each task once, under its own token."""
        done = refused = 0

        async def work(number: int) -> None:
            nonlocal done, refused
            stub, asked = self.stub(), self.claim(number)
            while tasks := (await stub.ClaimTasks(asked, timeout=30)).tasks:
                ends = pb.CompleteTasksRequest()
                add = ends.completions.add
                for leased in tasks:
                    add(name=leased.task.name, token=leased.token, success=True, method="bench")
                answer = await stub.CompleteTasks(ends, timeout=30)
                done += answer.completed
                refused += len(answer.refusals)

        began = time.perf_counter()
        await asyncio.gather(*(work(number) for number in range(self.workers)))
        took = time.perf_counter() - began
        return {"tasks": done, "refused": refused, "seconds": round(took, 3), "per_second": round(done / took)}

    async def single(self) -> dict[str, Any]:
        """One task after the other: the raw claim, the claim, the completion, in turns."""
        stub, asked = self.stub(), self.claim(0)
        connection = await asyncpg.connect(self.database)
        toolset = await connection.fetchval("SELECT id FROM queue.toolsets WHERE tools = $1", self.tools[:1])
        now = await connection.fetchval("SELECT clock_timestamp()")
        raw, claims, completions = [], [], []
        try:
            for turn in range(-WARM_UP, self.count):
                began = time.perf_counter()
                await connection.fetchrow(RAW_CLAIM, toolset, now)
                between = time.perf_counter()
                (leased,) = (await stub.ClaimTasks(asked, timeout=30)).tasks
                claimed = time.perf_counter()
                end = pb.CompleteTaskRequest(name=leased.task.name, token=leased.token, success=True, method="bench")
                await stub.CompleteTask(end, timeout=30)
                if turn >= 0:
                    raw.append(between - began)
                    claims.append(claimed - between)
                    completions.append(time.perf_counter() - claimed)
        finally:
            await connection.close()
        return {"raw_claim": spread(raw), "claim": spread(claims), "complete": spread(completions)}

    async def reports(self) -> dict[str, Any]:
        """Errors in batches: first every one new, then the same kinds again."""
        figures: dict[str, Any] = {}
        for kind in ("new", "repeated"):
            numbers = iter(range(0, self.count, self.batch))

            async def tell(numbers: Any = numbers) -> None:
                stub = self.stub()
                for first in numbers:
                    told = self.told(range(first, first + self.batch))
                    answer = await stub.ReportErrors(told, timeout=60)
                    if any(outcome.refusal for outcome in answer.outcomes):
                        raise RuntimeError(f"refused: {answer.outcomes[0]}")

            began = time.perf_counter()
            await asyncio.gather(*(tell() for _ in range(self.workers)))
            took = time.perf_counter() - began
            figures[kind] = {"reports": self.count, "per_second": round(self.count / took)}
        return figures

    async def report(self) -> dict[str, Any]:
        """New kinds of errors, one at a time."""
        stub, delays = self.stub(), []
        for number in itertools.islice(itertools.count(10_000_000), WARM_UP + self.count):
            told = self.told([number])
            began = time.perf_counter()
            answer = await stub.ReportErrors(told, timeout=30)
            delays.append(time.perf_counter() - began)
            if not answer.outcomes[0].created:
                raise RuntimeError(f"not a new report: {answer.outcomes[0]}")
        return spread(delays[WARM_UP:])

    async def stats(self) -> dict[str, Any]:
        """The queue in figures, again and again."""
        stub, delays = self.stub(), []
        for _ in range(WARM_UP + self.count):
            began = time.perf_counter()
            await stub.GetQueueStats(pb.GetQueueStatsRequest(), timeout=30)
            delays.append(time.perf_counter() - began)
        return spread(delays[WARM_UP:])

    def told(self, numbers: Sequence[int]) -> pb.ReportErrorsRequest:
        """Errors as a gateway tells them: a message, a stack, a release; each number is a kind of its own."""
        request = pb.ReportErrorsRequest(request_id=new_id(), source="service")
        for number in numbers:
            one = request.errors.add(plugin=f"bench-{number // 4}", merchant="bench", package="bench", release="1.0.0")
            one.error.type, one.error.module = "TimeoutError", f"module{_letters(number % 4)}"
            one.error.message = f"the request to {_letters(number)} timed out"
            one.error.stack = STACK
        return request


WARM_UP = 50
STACK = "Traceback (most recent call last):\n" + "\n".join(
    f'  File "/srv/shop/{name}.py", line 1{name.__len__()}, in {name}\n    {name}()'
    for name in ("checkout", "deliver", "post", "send", "connect", "read")
)


def _letters(number: int) -> str:
    # Digits are no part of a fingerprint.
    return str(number).translate(str.maketrans("0123456789", "abcdefghij"))


async def main() -> None:
    """Takes the order, runs it, prints the answer."""
    print(json.dumps(await Load(**json.loads(sys.stdin.readline())).run()), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
