"""Summaries: how often incidents came back that people were told of once.

Rule: what repeats a message is sent to nobody, and told in sum: each `summary_interval` while it goes on, at once when
a flapping incident has become calm, and when nothing new came for a whole `repeat_window`. A summary asks nobody to
answer and waits for the morning. Only how it ended may be a question: an incident that has come back and has not ended
since is told like the first time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.ops.decoded_fact import display_name
from services.ops.notify.model import Notice
from services.ops.severity import Severity
from services.ops.text import duration, times

# What a summary is called among the kinds of facts that a message tells of; it is none itself.
KIND = "incident_repeats"
# In place of its last return, where a summary asks people about it.
QUESTION = "incident_reopened"


@dataclass(frozen=True, slots=True)
class Repeats:
    """What came back since it was told last; `told_time` is when that was, `settled` whether nothing new came for a
    whole window.
    """

    key: str
    times: int
    told_time: datetime
    last_time: datetime
    last_event: str
    incident: str
    plugin: str
    merchant: str
    label: str
    type: str
    severity: Severity
    ended: bool
    settled: bool


def summary(found: Repeats) -> Notice:
    """The line that tells of them."""
    stays = found.settled and not found.ended
    # A repeat is never urgent; that it stays is.
    severity = found.severity if stays else min(found.severity, Severity.HIGH)
    span = duration(max(0.0, (found.last_time - found.told_time).total_seconds()))
    what = found.type or "an incident"
    how = "it has ended" if found.ended else "it has not ended since" if stays else "it goes on"
    line = f"{display_name(found.label, found.plugin)}: {what} came back {times(found.times)} in {span}, and {how}"
    return Notice(
        event=found.last_event,
        time=found.last_time,
        fact=QUESTION if stays else KIND,
        severity=severity,
        headline=line,
        key=found.key,
        plugin=found.plugin,
        merchant=found.merchant,
        incident=found.incident,
        command=f"prunella stories show {found.incident}",
    )
