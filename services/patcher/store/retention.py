"""Retention: old permits, errands and watches that are over, and staging results are deleted, bounded at a time."""

from datetime import datetime, timedelta

from libs.common.database import Transaction

RETENTION = {
    "permits": ("nonce", "create_time", timedelta(days=7), ""),
    "errands": ("id", "create_time", timedelta(days=7), "AND state <> 'pending'"),
    "attempt_watches": ("attempt", "end_time", timedelta(days=30), ""),
    "staging_cache": ("ctid", "create_time", timedelta(days=30), ""),
}
MOST = 5000


async def clean_up(tx: Transaction, now: datetime) -> int:
    """Removes rows older than they are useful; how many."""
    removed = 0
    for table, (key, time, age, also) in RETENTION.items():
        removed += await tx.run(
            f"DELETE FROM patcher.{table} WHERE {key} IN "
            f"(SELECT {key} FROM patcher.{table} WHERE {time} < :before {also} LIMIT {MOST})",
            before=now - age,
        )
    return removed
