"""The errors of a plugin as its agent reports them: one counter per fingerprint, sent until it is acknowledged.

Rule: a counter has an id and a figure that only rises, so a message that is lost, repeated or late changes nothing but
latency. At most one message a second goes out, one at a time, with the latest figures of up to 100 counters; without an
acknowledgement it goes out again, after 5 s and then ever more slowly. At most 256 counters are kept; the one that was
idle longest goes first, and one the plane does not have yet only when there is no other. What the plane rejects is
tried again a minute later and with each new stream: nothing is lost should it come to accept it.
"""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import Clock
from prunella_agent.error_groups import ATTRIBUTES, MAX_ATTRIBUTE, MAX_CONTEXT, MAX_STACK, printable, truncate_middle
from prunella_agent.fingerprint import fingerprint

MAX_COUNTERS = 256
MAX_REPORTS = 100
MAX_BYTES = 256 * 1024
PACE = 1.0
AGAIN = (5.0, 60.0)
REJECTED_SECONDS = 60.0
MAX_MESSAGE = 8192
MAX_COUNTED = 1_000_000_000
# Seconds that an error waits in its process at most; what is more, the clock was changed meanwhile.
LONGEST_UNHEARD = 60.0
SEVERITIES = ("", "low", "medium", "high", "critical")


@dataclass
class ErrorCounter:
    """Errors of one fingerprint: `acknowledged` of them the plane has, and it is not sent again before `retry_at`.

    `occurred` is when the last one was; None when nobody knows.
    """

    report: pb.ErrorReport
    occurred: float | None = None
    acknowledged: int = 0
    retry_at: float = -math.inf

    @property
    def pending(self) -> bool:
        """Whether the plane does not know its figure."""
        return bool(self.report.occurrences > self.acknowledged)


class ErrorCounters:
    """The counters of one agent. Moments are seconds of a monotonic clock."""

    def __init__(self, *, pace: float = PACE, again: tuple[float, float] = AGAIN) -> None:
        self._pace, self._again = pace, again
        self._counters: OrderedDict[str, ErrorCounter] = OrderedDict()
        self._sequence = 0
        self._sent: list[tuple[ErrorCounter, int]] = []
        self._sent_at = -math.inf
        self._unanswered = 0

    @property
    def pending(self) -> int:
        """How many counters the plane does not know the figure of."""
        return sum(counter.pending for counter in self._counters.values())

    def add(self, error: pb.ErrorReport, occurred: float | None = None) -> None:
        """Counts `error.occurrences` errors more (0 means 1), the last one at `occurred`; its id is given here."""
        count = min(max(error.occurrences, 1), MAX_COUNTED)
        key = fingerprint("", error.type, error.message, error.stack).digest
        counter = self._counters.pop(key, None)
        if counter is None:
            if len(self._counters) >= MAX_COUNTERS:
                self._evict()
            counter = ErrorCounter(pb.ErrorReport(id=str(uuid.uuid4())))
        # The latest one is what people see; it has the same fingerprint.
        latest = pb.ErrorReport()
        latest.CopyFrom(error)
        latest.id, latest.occurrences = counter.report.id, counter.report.occurrences + count
        counter.report, counter.occurred = latest, occurred
        self._counters[key] = counter

    def due(self, now: float) -> float | None:
        """Seconds until there is a message to send, 0 for now; None when everything was acknowledged."""
        if self._sent:
            first, last = self._again
            due_time = self._sent_at + min(last, first * 2.0 ** min(self._unanswered, 16))
        else:
            times = [counter.retry_at for counter in self._counters.values() if counter.pending]
            if not times:
                return None
            due_time = max(min(times), self._sent_at + self._pace)
        return max(0.0, due_time - now)

    def next(self, now: float) -> pb.ErrorReports | None:
        """The message that is due."""
        if self.due(now) != 0.0:
            return None
        self._unanswered += bool(self._sent)
        self._sequence += 1
        message = pb.ErrorReports(sequence=self._sequence)
        self._sent, size = [], 0
        for counter in self._counters.values():
            if not counter.pending or counter.retry_at > now:
                continue
            size += counter.report.ByteSize()
            if len(self._sent) == MAX_REPORTS or (self._sent and size > MAX_BYTES):
                break
            self._sent.append((counter, counter.report.occurrences))
            message.reports.append(counter.report)
            if counter.occurred is not None:
                message.reports[-1].age.FromNanoseconds(int(max(0.0, now - counter.occurred) * 1e9))
        self._sent_at = now
        return message if self._sent else None

    def acknowledge(self, ack: pb.ErrorsAck, now: float) -> None:
        """The plane has the message that was sent last; an answer to an older one says nothing."""
        if ack.sequence != self._sequence or not self._sent:
            return
        sent, self._sent, self._unanswered = self._sent, [], 0
        rejected = {rejection.index for rejection in ack.rejections}
        for index, (counter, figure) in enumerate(sent):
            if index in rejected:
                counter.retry_at = now + REJECTED_SECONDS
            else:
                counter.acknowledged = max(counter.acknowledged, figure)

    def rewind(self) -> None:
        """A new stream: what was not acknowledged goes out again, and what was rejected."""
        self._sent, self._unanswered = [], 0
        for counter in self._counters.values():
            counter.retry_at = -math.inf

    def skip_pacing(self) -> None:
        """The next message need not keep its distance, for this may be the last chance."""
        self._sent_at = -math.inf

    def _evict(self) -> None:
        known = (key for key, counter in self._counters.items() if not counter.pending)
        del self._counters[next(known, next(iter(self._counters)))]


def occurrence_time(error: pb.ErrorReport, clock: Clock) -> float:
    """When an error occurred, on the monotonic clock: its process has the same wall clock, and was just heard."""
    ago = clock.now().timestamp() - error.time.ToNanoseconds() / 1e9 if error.HasField("time") else 0.0
    return clock.monotonic() - min(max(ago, 0.0), LONGEST_UNHEARD)


def from_datagram(body: Mapping[str, Any]) -> pb.ErrorReport:
    """The group of errors in a datagram of the SDK. Raises ValueError, KeyError or TypeError when it is none."""
    fields = body["error"]
    count, at = fields["count"], fields.get("time", 0.0)
    if type(count) is not int or not 0 < count <= MAX_COUNTED:
        raise ValueError(f"{count!r} is not a count")
    context = list((fields.get("context") or {}).items())[:MAX_CONTEXT]
    error = pb.ErrorReport(
        type=printable(fields["type"], MAX_ATTRIBUTE),
        message=truncate_middle(printable(fields["message"], MAX_MESSAGE), MAX_MESSAGE),
        stack=truncate_middle(printable(fields.get("stack", ""), 8 * MAX_STACK), MAX_STACK),
        context={printable(name, 64): printable(value, MAX_ATTRIBUTE) for name, value in context},
        occurrences=count,
    )
    for name in ATTRIBUTES:
        setattr(error, name, printable(fields.get(name, ""), MAX_ATTRIBUTE))
    if error.severity.lower() not in SEVERITIES:
        # A severity the plane does not know is no reason to lose the report.
        error.context["severity"] = error.severity
        error.severity = ""
    if isinstance(at, (int, float)) and 0 < at < 2**40:
        error.time.FromNanoseconds(int(at * 1e9))
    return error
