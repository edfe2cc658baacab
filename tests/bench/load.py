"""The load of the beats measurement: the same for the plane and for its peer, in a process of its own.

An order says where, in which shape, with how many in flight and for how long; the answer is beats per second. Shapes:
`closed` (one beat in flight per worker, unary), `paced` (each worker sends `window` beats per second, unary),
`pipelined` (streams with a window each), `batch` (ReportBatch of 100).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc
from tests.bench.backing import percentile, secret

BATCH = 100


def beat(sequence: int) -> pb.Beat:
    """A beat as an agent sends it, of a plugin that is well."""
    made = pb.Beat(
        boot_id="0192f0c1-7d3e-7b8a-9c55-2f1e6a7b8c9d", sequence=sequence, errors=0, webhook_attempts=sequence * 20,
        webhook_failures=sequence // 50, release="1.0.0", health=pb.HEALTH_HEALTHY, environment={"cms": "none"},
        numbers={"queue": 3.0},
    )  # fmt: skip
    made.time.FromNanoseconds(time.time_ns())
    made.uptime.FromSeconds(sequence)
    return made


@dataclass
class Load:
    """One run of one shape."""

    address: str
    plugins: list[str]
    seconds: float
    workers: int
    window: int
    first: int
    done: int = 0
    delays: list[float] = field(default_factory=list)
    until: float = 0.0

    def stub(self) -> agent_pb2_grpc.AgentGatewayStub:
        """A stub on a channel of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        return agent_pb2_grpc.AgentGatewayStub(grpc.aio.insecure_channel(self.address, options=options))

    def turns(self) -> Iterator[tuple[str, int]]:
        """Every plugin in turn, with a sequence that rises with each round."""
        for sequence in itertools.count(self.first):
            for plugin in self.plugins:
                yield plugin, sequence

    async def run(self, shape: str) -> dict[str, Any]:
        """Beats per second over the whole time, and how long one waited (ms)."""
        turns = self.turns()
        stubs = [self.stub() for _ in range(min(self.workers, 8))]
        work = {"closed": self.closed, "paced": self.paced, "batch": self.batch, "pipelined": self.pipelined}[shape]
        began = time.perf_counter()
        self.until = began + self.seconds
        await asyncio.gather(*(work(stubs[n % len(stubs)], turns, n) for n in range(self.workers)))
        took = time.perf_counter() - began
        figures: dict[str, Any] = {"beats_per_second": round(self.done / took)}
        if self.delays:
            figures["p50_ms"] = round(1000 * percentile(self.delays, 0.5), 2)
            figures["p99_ms"] = round(1000 * percentile(self.delays, 0.99), 2)
        return figures

    async def closed(self, stub: Any, turns: Iterator[tuple[str, int]], _n: int) -> None:
        while (began := time.perf_counter()) < self.until:
            plugin, sequence = next(turns)
            metadata = (("authorization", f"Plugin {plugin}:{secret(plugin)}"),)
            await stub.Heartbeat(pb.HeartbeatRequest(beat=beat(sequence)), metadata=metadata, timeout=30)
            self.delays.append(time.perf_counter() - began)
            self.done += 1

    async def paced(self, stub: Any, turns: Iterator[tuple[str, int]], _n: int) -> None:
        while (began := time.perf_counter()) < self.until:
            plugin, sequence = next(turns)
            metadata = (("authorization", f"Plugin {plugin}:{secret(plugin)}"),)
            await stub.Heartbeat(pb.HeartbeatRequest(beat=beat(sequence)), metadata=metadata, timeout=30)
            self.done += 1
            await asyncio.sleep(max(0.0, began + 1 / self.window - time.perf_counter()))

    async def batch(self, stub: Any, turns: Iterator[tuple[str, int]], _n: int) -> None:
        while (began := time.perf_counter()) < self.until:
            entries = [
                pb.BatchBeat(plugin=plugin, secret=secret(plugin), beat=beat(sequence))
                for plugin, sequence in itertools.islice(turns, BATCH)
            ]
            answer = await stub.ReportBatch(pb.ReportBatchRequest(beats=entries), timeout=30)
            if answer.accepted != BATCH:
                raise RuntimeError(f"only {answer.accepted} of {BATCH} were accepted: {answer.rejections[0]}")
            self.delays.append(time.perf_counter() - began)
            self.done += BATCH

    async def pipelined(self, stub: Any, _turns: Iterator[tuple[str, int]], n: int) -> None:
        """One stream with `window` beats in flight; acknowledgements may cover several."""
        plugin = self.plugins[n]
        metadata = (("authorization", f"Plugin {plugin}:{secret(plugin)}"),)
        acknowledged, sent = self.first, self.first
        news = asyncio.Event()
        hello = pb.Hello(boot_id=beat(0).boot_id, release="1.0.0", package="bench")

        async def says() -> AsyncIterator[pb.ConnectRequest]:
            nonlocal sent
            yield pb.ConnectRequest(hello=hello)
            while time.perf_counter() < self.until:
                if sent - acknowledged >= self.window:
                    news.clear()
                    await news.wait()
                    continue
                sent += 1
                yield pb.ConnectRequest(beat=beat(sent))
            while acknowledged < sent:
                news.clear()
                await asyncio.wait_for(news.wait(), 10)

        async for response in stub.Connect(says(), metadata=metadata):
            if response.WhichOneof("message") == "ack":
                self.done += response.ack.sequence - acknowledged
                acknowledged = response.ack.sequence
                news.set()


async def main() -> None:
    """Takes the order, runs it, prints the answer."""
    order = json.loads(sys.stdin.readline())
    shape = order.pop("shape")
    print(json.dumps(await Load(**order).run(shape)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
