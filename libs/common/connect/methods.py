"""Which methods there are, and what they take and give, as the protos say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


@dataclass(frozen=True)
class Method:
    """One method; `streams` when it answers more than once."""

    path: str
    request: type[Message]
    response: type[Message]
    streams: bool
    descriptor: MethodDescriptor


def methods(services: Iterable[ServiceDescriptor], keep: Callable[[str], bool] = lambda _: True) -> dict[str, Method]:
    """The methods of services by path; those whose caller streams are left to gRPC."""
    found = {}
    for service in services:
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            if not method.client_streaming and keep(path):
                request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
                found[path] = Method(path, request, response, method.server_streaming, method)
    return found
