"""A process of workers that can be killed and stopped: each takes a task, works for a moment, and tells the end.

What a task is like is in the name of its plugin: `plain` succeeds, `shaky` fails once and then succeeds, `hopeless`
always fails, `hanging` keeps its worker until long after the lease, `lethal` kills the process. Everything a worker was
told is a line in its journal at once, so that a kill loses nothing that was heard.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop

from libs.common import access
from prunella.v1 import queue_pb2 as pb
from prunella.v1 import queue_pb2_grpc

LEASE_SECONDS = 5
HANGS_SECONDS = 7.0
WAIT_SECONDS = 2
CALL_SECONDS = 20.0


@dataclass
class Workers:
    """One process: `count` workers with the same tools."""

    name: str
    address: str
    key: str
    count: int
    tools: list[str]
    journal: str
    seed: int
    longest: float

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311 - how long work takes, not a secret
        self.token = [(access.AUTHORIZATION, access.service_token(self.key, "worker"))]
        self.lines = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def run(self) -> None:
        """Works until it is killed."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = queue_pb2_grpc.QueueServiceStub(channel)
            await asyncio.gather(*(self.work(stub, f"{self.name}-{number}") for number in range(self.count)))

    async def work(self, stub: Any, worker: str) -> None:
        """One worker: a task at a time, now and then two."""
        while True:
            asked = pb.ClaimTasksRequest(
                worker=worker, max_tasks=self.chance.choice((1, 1, 1, 2)), tools=self.tools, omit_details=True
            )
            asked.lease_duration.FromSeconds(LEASE_SECONDS)
            asked.wait_duration.FromSeconds(WAIT_SECONDS)
            for leased in (await stub.ClaimTasks(asked, timeout=CALL_SECONDS, metadata=self.token)).tasks:
                await self.task(stub, worker, leased)

    async def task(self, stub: Any, worker: str, leased: pb.LeasedTask) -> None:
        """One task, from its lease to what the queue says to its end."""
        kind = leased.task.plugin.split("-")[0]
        self.note(worker, leased, "took")
        if kind == "lethal":
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(HANGS_SECONDS if kind == "hanging" else self.chance.uniform(0, self.longest))
        success = kind in {"plain", "hanging"} or (kind == "shaky" and leased.task.attempts > 0)
        end = pb.CompleteTaskRequest(name=leased.task.name, token=leased.token, success=success, method="chaos")
        end.failure = "" if success else "TOOL_FAILED"
        try:
            await stub.CompleteTask(end, timeout=CALL_SECONDS, metadata=self.token)
        except grpc.aio.AioRpcError as error:
            self.note(worker, leased, error.code().name)
        else:
            self.note(worker, leased, "recorded")

    def note(self, worker: str, leased: pb.LeasedTask, word: str) -> None:
        """A line of the journal."""
        line = {"worker": worker, "task": leased.task.name.removeprefix("tasks/"), "token": leased.token, "word": word}
        os.write(self.lines, json.dumps(line).encode() + b"\n")


def read(journals: Path) -> list[dict[str, Any]]:
    """Every line of every journal in a folder."""
    return [json.loads(line) for file in sorted(journals.iterdir()) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    uvloop.run(Workers(**json.loads(sys.stdin.readline())).run())
