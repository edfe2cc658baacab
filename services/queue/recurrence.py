"""Reports and their repeats: what counts as one more occurrence, and what it does to a report that was thought healed.

Rule: a counter has an identity; under the same identity only the difference counts (never less than nothing), under
another the whole. So repeats neither lose nor double, whatever is sent twice. One more occurrence of a report that is
new, in work or with a person only counts. Within the watch window after a worker's success it takes the success back:
the report is in work again, and the strategy that did not last is left out of the next choice. After that it is a
regression: the report is new again, whether a machine or a person had ended it. An occurrence from before the
resolution, reported late, only counts: it arrived when it did, and is as old as a monotonic clock of its reporter says.
"""

from collections.abc import Iterable
from dataclasses import dataclass

STATES = ("new", "triaging", "in_progress", "resolved_pending", "resolved", "escalated", "closed")
# What one more occurrence makes of a report that was thought healed.
REOPENS = {"resolved_pending": "in_progress", "resolved": "new", "closed": "new"}

# state → (who acts on it, by when, what comes next)
OWNERS = {
    "new": ("sweep triage", "triage_time", "triaging, in_progress or escalated"),
    "triaging": ("errand model_triage, after its deadline sweep triage", "triage_time", "in_progress or escalated"),
    "in_progress": ("its task; sweep triage after a recurrence", "the task's own", "resolved_pending or escalated"),
    "resolved_pending": ("sweep watch", "watch_end_time", "resolved, or in_progress when it recurs"),
    "resolved": ("nobody: it is over", "none", "new when it recurs"),
    "escalated": ("a person", "none: it stays visible", "in_progress, new or closed by a person"),
    "closed": ("nobody: it is over", "none", "new when it recurs"),
}


@dataclass(frozen=True)
class CounterValue:
    """How often something occurred under one counter; an empty counter is no counter, and always counts whole."""

    counter: str
    value: int


def merge_counters(reported: Iterable[CounterValue]) -> list[CounterValue]:
    """The counts of one batch, one for each counter in the order they first came: the highest value of each stands."""
    found: dict[str, int] = {}
    for count in reported:
        before = found.get(count.counter, 0)
        found[count.counter] = max(before, count.value) if count.counter else before + count.value
    return [CounterValue(counter, value) for counter, value in found.items()]
