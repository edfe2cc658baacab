"""The policy ⇄ dataclass, and the history of its versions, which only grows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.patcher.freeze import FreezeWindow
from services.patcher.policy import Difference, Isolation, Policy, Severity

NAMES = tuple(field.name for field in fields(Policy))
LISTS = frozenset({"autopatch_merchants", "canary_merchants", "multisig_roles", "multisig_approvers"})
CAST = dict.fromkeys(LISTS, "text[]") | {"freeze_windows": "jsonb"}
GET = f"SELECT {', '.join(NAMES)} FROM patcher.policy WHERE id = 1"
SET = f"""
UPDATE patcher.policy
SET {", ".join(f"{n} = CAST(:{n} AS {CAST[n]})" if n in CAST else f"{n} = :{n}" for n in NAMES)}
WHERE id = 1
"""

APPEND_CHANGE = """
INSERT INTO patcher.policy_changes (version, actor, reason, create_time, fields)
VALUES (:version, :actor, :reason, :create_time, CAST(:fields AS jsonb))
"""
CHANGES = """
SELECT version, actor, reason, create_time, fields FROM patcher.policy_changes
WHERE CAST(:before AS bigint) IS NULL OR version < CAST(:before AS bigint) ORDER BY version DESC LIMIT :limit
"""


@dataclass(frozen=True)
class PolicyVersion:
    """One version of the policy: who made it, why, and what differs from the one before."""

    version: int
    actor: str
    reason: str
    create_time: datetime | None
    fields: tuple[Difference, ...]


async def get(tx: Transaction, *, lock: bool = False) -> Policy:
    """The policy in force."""
    row = await tx.first(f"{GET} FOR UPDATE" if lock else GET)
    assert row is not None, "the first migration writes the row"
    values = {name: getattr(row, name) for name in NAMES}
    lists = {name: tuple(values[name]) for name in LISTS}
    severity = {
        "autopatch_max_severity": Severity(row.autopatch_max_severity),
        "min_isolation": Isolation(row.min_isolation),
    }
    windows = {"freeze_windows": tuple(_window(each) for each in row.freeze_windows)}
    return Policy(**values | lists | severity | windows)


async def put(tx: Transaction, policy: Policy) -> None:
    """Saves the policy."""
    values = {name: getattr(policy, name) for name in NAMES}
    lists = {name: list(values[name]) for name in LISTS}
    severity = {
        "autopatch_max_severity": int(policy.autopatch_max_severity),
        "min_isolation": int(policy.min_isolation),
    }
    windows = [vars(each) | {"duration": each.duration.total_seconds()} for each in policy.freeze_windows]
    await tx.run(SET, **values | lists | severity | {"freeze_windows": json.dumps(windows)})


async def append_change(tx: Transaction, policy: Policy, differences: Sequence[Difference]) -> None:
    """Saves what a version changed, in the transaction that puts it in force."""
    fields_json = json.dumps([asdict(each) for each in differences])
    values = {"version": policy.version, "actor": policy.updated_by, "reason": policy.reason}
    await tx.run(APPEND_CHANGE, **values, create_time=policy.update_time, fields=fields_json)


async def changes(tx: Transaction, before: int | None, limit: int) -> list[PolicyVersion]:
    """Versions of the policy, newest first; `before` is the last one seen."""
    rows = await tx.all(CHANGES, before=before, limit=limit)
    return [
        PolicyVersion(
            row.version, row.actor, row.reason, row.create_time, tuple(Difference(**each) for each in row.fields)
        )
        for row in rows
    ]


def _window(row: dict[str, Any]) -> FreezeWindow:
    return FreezeWindow(row["cron"], row["time_zone"], timedelta(seconds=row["duration"]), row["reason"])
