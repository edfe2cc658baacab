"""What can be observed about an attempt: gates, staging, commands, permits, verdicts, people, and time.

Rule: an observation is a plain record of what was seen; what it means is decided by the machine alone. Any of them
may come late, twice, or after the attempt ended.
"""

import enum
from dataclasses import dataclass
from datetime import datetime

from services.patcher.policy import Reply
from services.patcher.verdict import Verdict


class Purpose(enum.StrEnum):
    """What a command is for."""

    SWITCH = "switch"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    HEALTH_CHECK = "health_check"


class Outcome(enum.StrEnum):
    """The agent's word on a command, or its deadline passed in silence."""

    APPLIED = "applied"
    COMMITTED = "committed"
    REVERTED = "reverted"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Staged:
    """What the sandbox saw."""

    passed: bool
    tests_passed: int
    tests_run: int
    seconds: float
    cached: bool = False
    failures: tuple[str, ...] = ()
    network: str = ""
    user: str = ""


@dataclass(frozen=True)
class Gated:
    """The policy was asked whether the attempt may go on; `plan` is the hash of what people would be asked about."""

    answer: Reply
    needs_staging: bool
    plan: str = ""


@dataclass(frozen=True)
class Granted:
    """People have approved the plan, and the policy was asked once more."""

    answer: Reply
    plan: str


@dataclass(frozen=True)
class Rejected:
    """A person said no to the plan."""

    actor: str
    reason: str


@dataclass(frozen=True)
class Stopped:
    """A kill switch or a storm came while the command had no permit yet."""

    gate: str
    reason: str


@dataclass(frozen=True)
class StagingFinished:
    """The sandbox has a result."""

    result: Staged


@dataclass(frozen=True)
class StagingLost:
    """No result came from any try."""

    reason: str


@dataclass(frozen=True)
class CommandIssued:
    """A command of this attempt was written down. `number` tells the tries of one purpose apart."""

    purpose: Purpose
    number: int
    command: str
    generation: int
    fence: int


@dataclass(frozen=True)
class CommandLost:
    """A command could not be written down in any try; it may exist all the same."""

    purpose: Purpose
    number: int
    reason: str


@dataclass(frozen=True)
class Permitted:
    """The switch was authorised."""

    command: str
    generation: int
    fence: int


@dataclass(frozen=True)
class CommandFinished:
    """The agent's word on a command, as ingest recorded it at `time`."""

    command: str
    kind: str
    generation: int
    fence: int
    outcome: Outcome
    detail: str
    time: datetime
    unasked: bool = False


@dataclass(frozen=True)
class Judged:
    """The verdict on what probation has shown so far."""

    verdict: Verdict


@dataclass(frozen=True)
class Seen:
    """What an authenticated beat says the plugin runs."""

    generation: int
    release: str
    digest: str
    beat_time: datetime


@dataclass(frozen=True)
class Gone:
    """The plugin left for good; its agent will not be heard again."""

    reason: str


@dataclass(frozen=True)
class DeadlinePassed:
    """The deadline of the state is over."""


@dataclass(frozen=True)
class CancelRequested:
    """A person, a preempting attempt or the end of the incident wants this to stop."""

    actor: str
    reason: str


@dataclass(frozen=True)
class RollbackRequested:
    """A person or a kill switch wants the remedy taken back."""

    actor: str
    reason: str


Observation = (
    Gated
    | Granted
    | Rejected
    | Stopped
    | StagingFinished
    | StagingLost
    | CommandIssued
    | CommandLost
    | Permitted
    | CommandFinished
    | Judged
    | Seen
    | Gone
    | DeadlinePassed
    | CancelRequested
    | RollbackRequested
)
