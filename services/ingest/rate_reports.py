"""Bare rates: a webhook_fail_rate that a client reports without the attempts behind it.

Rule: one figure without its count is no evidence, several in a row are. The lowest of them is what they all support.
What was reported before the last change, or more than a day ago, does not count.
"""

from __future__ import annotations

import struct

LAYOUT = struct.Struct("<dd")


def append(packed: bytes, at: float, rate: float, since: float, count: int, *, again: bool) -> bytes:
    """The newest `count` reports with one more at `at` (Unix seconds); `again`: the newest one came once more."""
    kept = [report for report in LAYOUT.iter_unpack(packed) if since < report[0]]
    if again and kept:
        kept.pop()
    return b"".join(LAYOUT.pack(*report) for report in [*kept, (at, rate)][-count:])


def lowest(packed: bytes, count: int) -> float | None:
    """The lowest of the newest `count` reports; None while there are fewer."""
    rates = [rate for _, rate in LAYOUT.iter_unpack(packed)]
    return min(rates[-count:]) if len(rates) >= count else None
