"""What the worker is told by its environment; everything else is in its configuration file."""

from __future__ import annotations

from pydantic import field_validator

from libs.common.settings import Address, ProcessSettings, variable


class WorkerSettings(ProcessSettings):
    """Where the queue is, how the worker proves itself, and where it is seen."""

    queue_address: Address = variable(
        "PRUNELLA_QUEUE_ADDRESS", rule="host:port of the queue service", remedy="for example 127.0.0.1:7004"
    )
    http_listen: Address = variable(
        "PRUNELLA_HTTP_LISTEN",
        default="",
        rule="host:port for metrics; empty for none",
        remedy="for example 127.0.0.1:9010",
    )

    @field_validator("queue_address")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            message = "empty"
            raise ValueError(message)
        return value
