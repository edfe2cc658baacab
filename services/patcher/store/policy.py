"""The row of the policy ⇄ dataclass."""

import json
from dataclasses import fields
from datetime import timedelta
from typing import Any

from libs.common.database import Transaction
from services.patcher.freeze import FreezeWindow
from services.patcher.policy import Policy, Severity

NAMES = tuple(field.name for field in fields(Policy))
LISTS = frozenset({"autopatch_merchants", "canary_merchants", "multisig_roles", "multisig_approvers"})
CAST = dict.fromkeys(LISTS, "text[]") | {"freeze_windows": "jsonb"}
GET = f"SELECT {', '.join(NAMES)}, request_id FROM patcher.policy WHERE id = 1"
SET = f"""
UPDATE patcher.policy
SET {", ".join(f"{n} = CAST(:{n} AS {CAST[n]})" if n in CAST else f"{n} = :{n}" for n in NAMES)},
    request_id = :request_id
WHERE id = 1
"""


async def get(tx: Transaction, *, lock: bool = False) -> tuple[Policy, str]:
    """The policy in force and the request that set it."""
    row = await tx.first(f"{GET} FOR UPDATE" if lock else GET)
    assert row is not None, "the first migration writes the row"
    values = {name: getattr(row, name) for name in NAMES}
    lists = {name: tuple(values[name]) for name in LISTS}
    severity = {"autopatch_max_severity": Severity(row.autopatch_max_severity)}
    windows = {"freeze_windows": tuple(_window(each) for each in row.freeze_windows)}
    return Policy(**values | lists | severity | windows), row.request_id


async def put(tx: Transaction, policy: Policy, request_id: str) -> None:
    """Saves the policy."""
    values = {name: getattr(policy, name) for name in NAMES}
    lists = {name: list(values[name]) for name in LISTS}
    severity = {"autopatch_max_severity": int(policy.autopatch_max_severity)}
    windows = [vars(each) | {"duration": each.duration.total_seconds()} for each in policy.freeze_windows]
    await tx.run(SET, **values | lists | severity | {"freeze_windows": json.dumps(windows)}, request_id=request_id)


def _window(row: dict[str, Any]) -> FreezeWindow:
    return FreezeWindow(row["cron"], row["time_zone"], timedelta(seconds=row["duration"]), row["reason"])
