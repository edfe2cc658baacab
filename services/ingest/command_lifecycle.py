"""Desired state for one plugin, delivered until the agent has it, and the agent's receipts for it.

Rule: fences rise with every command of a plugin, generations with every command that switches. A newer command
supersedes every live one before it. Delivery is at-least-once: on each new session, and every three seconds until the
agent has it or sends a receipt. Receipts are always recorded, also late; a command keeps its first end. COMMITTED and
REVERTED are final outcomes of a generation and the first stands, but a rollback that was asked for may revert what was
committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

from libs.common.errors import Invalid


class Kind(IntEnum):
    """As in the protos."""

    UPDATE = 1
    ROLLBACK = 2
    CONFIG_UPDATE = 3
    RESTART = 4
    HEALTH_CHECK = 5
    COMMIT = 6


class Outcome(IntEnum):
    """What the agent made of a command, as in the protos."""

    APPLIED = 1
    COMMITTED = 2
    REVERTED = 3
    DONE = 4
    REFUSED = 5
    FAILED = 6


class State(StrEnum):
    """How far a command got."""

    PENDING = "pending"
    DELIVERED = "delivered"
    RECEIVED = "received"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


LIVE = (State.PENDING, State.DELIVERED, State.RECEIVED)
FINAL = (Outcome.COMMITTED, Outcome.REVERTED)
# These are about a generation that exists; the others make a new one.
ABOUT_EXISTING = (Kind.COMMIT, Kind.ROLLBACK, Kind.HEALTH_CHECK)
REDELIVERY = timedelta(seconds=3)
LIFETIME = timedelta(minutes=5)

# No state without an owner and an end.
OWNERS: dict[State, tuple[str, str, State | None]] = {
    State.PENDING: ("ingest, by delivery", "deadline", State.EXPIRED),
    State.DELIVERED: ("the agent, by having it or by a receipt", "deadline", State.EXPIRED),
    State.RECEIVED: ("the agent, by a receipt", "deadline", State.EXPIRED),
    **{state: ("nobody", "it is over", None) for state in State if state not in LIVE},
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command."""

    id: str
    request_id: str
    plugin: str
    merchant: str
    attempt: str
    incident: str
    kind: Kind
    generation: int
    fence: int
    state: State
    deadline_time: datetime
    issue_time: datetime
    release: str = ""
    envelope: bytes = b""
    digest: str = ""
    size: int = 0
    dead_man_seconds: float = 0.0
    config: bytes = b""
    traceparent: str = ""
    first_write_time: datetime | None = None
    end_time: datetime | None = None
    detail: str = ""

    @property
    def live(self) -> bool:
        """Whether it is still to be delivered or answered."""
        return self.state in LIVE


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an agent reports on a command."""

    command: str
    attempt: str
    generation: int
    fence: int
    outcome: Outcome
    detail: str
    release: str
    digest: str
    unsolicited: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a receipt changes: the command's new state (None: stays), the generation's final outcome, whether it is
    recorded as a fact."""

    state: State | None
    final: Outcome | None
    recorded: bool
    # The plugin runs something else from now on, so windows count anew.
    switched: bool


def check_new(kind: int, generation: int, release: str, digest: str) -> Kind:
    """The kind of a command to be issued. Raises Invalid naming the field."""
    if kind not in set(Kind):
        raise Invalid("kind must be one of the command kinds", reason="KIND_UNKNOWN", field="kind", kind=str(kind))
    wanted = Kind(kind)
    if generation < 0:
        raise Invalid("generation must not be negative", reason="GENERATION_NEGATIVE", field="generation")
    if wanted in (Kind.COMMIT, Kind.ROLLBACK) and not generation:
        raise Invalid(
            f"{wanted.name.lower()} is about a generation; name it", reason="GENERATION_MISSING", field="generation"
        )
    if wanted not in ABOUT_EXISTING and generation:
        raise Invalid(
            f"{wanted.name.lower()} makes a new generation; leave it out", reason="GENERATION_GIVEN", field="generation"
        )
    if wanted is Kind.UPDATE and not (release and digest):
        raise Invalid("update needs release and digest", reason="RELEASE_MISSING", field="release")
    return wanted


def due(state: State, written_at: datetime | None, now: datetime, *, new_session: bool) -> bool:
    """Whether a live command is to be written to the stream now."""
    if state not in LIVE:
        return False
    if new_session:
        return True
    return state is not State.RECEIVED and (written_at is None or now - written_at >= REDELIVERY)


def settle(kind: Kind, state: State, final_so_far: Outcome | None, receipt: Receipt) -> Settlement:
    """What a new receipt changes. `final_so_far` is the final outcome of its generation."""
    outcome = receipt.outcome
    if outcome in FINAL and final_so_far is not None and final_so_far is not outcome:
        requested = kind is Kind.ROLLBACK and final_so_far is Outcome.COMMITTED and outcome is Outcome.REVERTED
        if not requested:
            return Settlement(_end(state, outcome), None, recorded=False, switched=False)
    final = outcome if outcome in FINAL else None
    again = final is not None and final_so_far is final
    switched = outcome in (Outcome.APPLIED, Outcome.REVERTED) and not again
    return Settlement(_end(state, outcome), None if again else final, recorded=True, switched=switched)


def _end(state: State, outcome: Outcome) -> State | None:
    if state not in LIVE:
        return None
    return {Outcome.FAILED: State.FAILED, Outcome.REFUSED: State.REFUSED}.get(outcome, State.DONE)
