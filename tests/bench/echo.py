"""The peer of the beats measurement: a bare grpc.aio server that answers the same messages and does nothing else."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc


class Echo(agent_pb2_grpc.AgentGatewayServicer):
    """Acknowledges at once."""

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:  # noqa: N802
        """One beat."""
        beat = request.beat
        return pb.HeartbeatResponse(ack=pb.BeatAck(boot_id=beat.boot_id, sequence=beat.sequence))

    async def ReportBatch(self, request: pb.ReportBatchRequest, context: Any) -> pb.ReportBatchResponse:  # noqa: N802
        """A hundred."""
        return pb.ReportBatchResponse(accepted=len(request.beats))

    async def Connect(  # noqa: N802
        self, requests: AsyncIterator[pb.ConnectRequest], context: Any
    ) -> AsyncIterator[pb.ConnectResponse]:
        """A stream of them."""
        async for request in requests:
            if request.WhichOneof("message") == "beat":
                beat = request.beat
                yield pb.ConnectResponse(ack=pb.BeatAck(boot_id=beat.boot_id, sequence=beat.sequence))
            else:
                yield pb.ConnectResponse(settings=pb.AgentSettings(credits=64))


async def main() -> None:
    """Serves until it is killed; prints its address."""
    json.loads(sys.stdin.readline())
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    agent_pb2_grpc.add_AgentGatewayServicer_to_server(Echo(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
