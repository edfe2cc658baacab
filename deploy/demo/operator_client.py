"""How the demo reaches a running plane: addresses and key, as an operator.

Rule: the demo does nothing that a person with the command line could not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from libs.common import rpc
from prunella.v1 import decider_pb2_grpc, ingest_pb2_grpc, ops_pb2_grpc, patcher_pb2_grpc, queue_pb2_grpc

CALL_SECONDS = 10.0


class OperatorClient:
    """Stubs of the plane's services; every call takes a timeout. `operator` is whose name is given."""

    def __init__(self, addresses: Mapping[str, str], key: str, operator: str = "") -> None:
        self.addresses = dict(addresses)
        self.key = key
        self._channels = {
            name: rpc.channel(addresses[name], caller="operator", key=key, operator=operator)
            for name in ("ingest", "decider", "patcher", "queue", "ops")
        }
        self.ingest: ingest_pb2_grpc.IngestServiceAsyncStub = ingest_pb2_grpc.IngestServiceStub(
            self._channels["ingest"]
        )
        self.decider: decider_pb2_grpc.DeciderServiceAsyncStub = decider_pb2_grpc.DeciderServiceStub(
            self._channels["decider"]
        )
        self.patcher: patcher_pb2_grpc.PatcherServiceAsyncStub = patcher_pb2_grpc.PatcherServiceStub(
            self._channels["patcher"]
        )
        self.queue: queue_pb2_grpc.QueueServiceAsyncStub = queue_pb2_grpc.QueueServiceStub(self._channels["queue"])
        self.ops: ops_pb2_grpc.OpsServiceAsyncStub = ops_pb2_grpc.OpsServiceStub(self._channels["ops"])

    @property
    def agents(self) -> str:
        """Where agents reach the plane (host:port)."""
        return self.addresses["ingest"]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels.values():
            await channel.close()
