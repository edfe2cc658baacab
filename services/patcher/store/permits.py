"""Permits: requested once under a nonce, granted or denied by one SQL function."""

from dataclasses import dataclass

from libs.common.database import Transaction
from libs.common.names import new_id

# Called alone: its locks must be held before its next statement reads.
AUTHORIZE = """
SELECT granted, permit, gate, fresh
FROM patcher.authorize_apply(:nonce, :permit, :plugin, :attempt, :command, :generation, :fence, :now, :objection)
"""


@dataclass(frozen=True)
class PermitRequest:
    """The switch an agent asks for; `nonce` makes a repeat the same question."""

    nonce: str
    plugin: str
    attempt: str
    command: str
    generation: int
    fence: int


@dataclass(frozen=True)
class Permit:
    """The answer; `fresh` is False for a repeated question.

    A denial that names a permit takes back no switch that was made under it: the repeat came after a stop.
    """

    granted: bool
    permit: str
    gate: str
    fresh: bool


async def authorize(tx: Transaction, permit_request: PermitRequest, objection: str = "") -> Permit:
    """Asks for the permit under the shared locks of every kill switch that covers the attempt.

    `objection` is the gate outside of SQL that has something against it; empty when none has.
    """
    row = await tx.first(
        AUTHORIZE,
        nonce=permit_request.nonce,
        permit=new_id(),
        plugin=permit_request.plugin,
        attempt=permit_request.attempt,
        command=permit_request.command,
        generation=permit_request.generation,
        fence=permit_request.fence,
        now=tx.now,
        objection=objection,
    )
    assert row is not None
    return Permit(row.granted, row.permit, row.gate, row.fresh)
