"""One signal of life of a plugin, parsed and checked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Health(IntEnum):
    """As in the protos."""

    UNSPECIFIED = 0
    HEALTHY = 1
    UNHEALTHY = 2
    DOWN = 3
    STARTING = 4


@dataclass(frozen=True, slots=True)
class ClientFigures:
    """Figures that plain HTTP clients compute themselves, in place of counters; None when not sent."""

    errors_last_24h: int | None = None
    webhook_fail_rate: float | None = None


@dataclass(frozen=True, slots=True)
class AgentCondition:
    """What hinders the agent on its host: a type, the folder, file or program it is about, what the system said."""

    type: str
    subject: str = ""
    detail: str = ""


@dataclass(slots=True)
class Beat:
    """Counters are cumulative since boot. Environment and numbers are empty when the beat says nothing of them.

    Without a boot (`boot_id` empty) a beat has no counters, and ingest's own order is its sequence.
    """

    boot_id: str
    sequence: int
    errors: int
    webhook_attempts: int
    webhook_failures: int
    signature_failures: int
    release: str
    generation: int
    digest: str
    health: Health
    client_figures: ClientFigures | None = None
    config_digest: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()
    failing_inputs: tuple[str, ...] = ()
    conditions: tuple[AgentCondition, ...] = ()
    # The agent's own clock, in Unix seconds; None when it named no time.
    time: float | None = None
    # What the running release requires of its host.
    requires: tuple[tuple[str, str], ...] = ()
    # A release that the host refused, with what it requires; empty when there is none.
    refused_release: str = ""
    refused_requires: tuple[tuple[str, str], ...] = ()
