"""What the worker is told by its environment; everything else is in its configuration file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from libs.common.settings import Address, HttpUrl, Key, variable


class WorkerSettings(BaseModel):
    """Where the queue is, how the worker proves itself, and where it is seen."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    queue_address: Address = variable(
        "PRUNELLA_QUEUE_ADDRESS", rule="host:port of the queue service", remedy="for example 127.0.0.1:7004"
    )
    key: Key = variable(
        "PRUNELLA_KEY",
        rule="the shared key of all services, at least 32 hexadecimal digits",
        remedy="take the key of the plane",
        secret=True,
    )
    http_listen: Address = variable(
        "PRUNELLA_HTTP_LISTEN",
        default="",
        rule="host:port for metrics; empty for none",
        remedy="for example 127.0.0.1:9010",
    )
    otlp: HttpUrl = variable(
        "PRUNELLA_OTLP",
        default="",
        rule="where spans go (OTLP over HTTP); empty keeps them here",
        remedy="for example http://127.0.0.1:9005/v1/traces",
    )
    log: Literal["json", "pretty", "auto"] = variable(
        "PRUNELLA_LOG",
        default="auto",
        rule="json, pretty, or auto (pretty on a terminal)",
        remedy="use one of the three words",
    )

    @field_validator("queue_address")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            message = "empty"
            raise ValueError(message)
        return value
