"""The row of the policy ⇄ dataclass."""

from dataclasses import fields

from libs.common.database import Transaction
from services.patcher.policy import Policy, Severity

NAMES = tuple(field.name for field in fields(Policy))
LISTS = frozenset({"autopatch_merchants", "canary_merchants"})
GET = f"SELECT {', '.join(NAMES)}, request_id FROM patcher.policy WHERE id = 1"
SET = f"""
UPDATE patcher.policy
SET {", ".join(f"{n} = CAST(:{n} AS text[])" if n in LISTS else f"{n} = :{n}" for n in NAMES)}, request_id = :request_id
WHERE id = 1
"""


async def get(tx: Transaction, *, lock: bool = False) -> tuple[Policy, str]:
    """The policy in force and the request that set it."""
    row = await tx.first(f"{GET} FOR UPDATE" if lock else GET)
    assert row is not None, "the first migration writes the row"
    values = {name: getattr(row, name) for name in NAMES}
    lists = {name: tuple(values[name]) for name in LISTS}
    severity = {"autopatch_max_severity": Severity(row.autopatch_max_severity)}
    return Policy(**values | lists | severity), row.request_id


async def put(tx: Transaction, policy: Policy, request_id: str) -> None:
    """Saves the policy."""
    values = {name: getattr(policy, name) for name in NAMES}
    lists = {name: list(values[name]) for name in LISTS}
    severity = {"autopatch_max_severity": int(policy.autopatch_max_severity)}
    await tx.run(SET, **values | lists | severity, request_id=request_id)
