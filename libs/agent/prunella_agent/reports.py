"""The errors of a plugin as its agent tells them: one counter per fingerprint, sent until it is acknowledged.

Rule: a counter has an id and a figure that only rises, so a message that is lost, repeated or late changes nothing but
latency. At most one message a second goes out, one at a time, with the latest figures of up to 100 counters; without an
acknowledgement it goes out again, after 5 s and then ever more slowly. At most 256 counters are kept; the one that was
idle longest goes first, and one the plane has not yet heard of only when there is no other. What the plane rejects is
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
from prunella_agent.errors import LONGEST_STACK, LONGEST_WORD, MOST_CONTEXT, WORDS, cut, text
from prunella_agent.fingerprint import fingerprint

MOST_COUNTERS = 256
MOST_REPORTS = 100
MOST_BYTES = 256 * 1024
PACE = 1.0
AGAIN = (5.0, 60.0)
REJECTED_SECONDS = 60.0
LONGEST_MESSAGE = 8192
MOST_COUNTED = 1_000_000_000
SEVERITIES = ("", "low", "medium", "high", "critical")


@dataclass
class Counter:
    """Errors of one fingerprint; `told` is the figure the plane has acknowledged, `wait` when to send again at last."""

    report: pb.ErrorReport
    told: int = 0
    wait: float = -math.inf

    @property
    def waiting(self) -> bool:
        """Whether the plane does not know its figure."""
        return bool(self.report.occurrences > self.told)


class Reports:
    """The counters of one agent. Moments are seconds of a monotonic clock."""

    def __init__(self, *, pace: float = PACE, again: tuple[float, float] = AGAIN) -> None:
        self._pace, self._again = pace, again
        self._counters: OrderedDict[str, Counter] = OrderedDict()
        self._sequence = 0
        self._sent: list[tuple[Counter, int]] = []
        self._sent_at = -math.inf
        self._unanswered = 0

    @property
    def unsent(self) -> int:
        """How many counters the plane does not know the figure of."""
        return sum(counter.waiting for counter in self._counters.values())

    def add(self, error: pb.ErrorReport) -> None:
        """Counts `error.occurrences` errors more (0 means 1); the counter's id is given here."""
        count = min(max(error.occurrences, 1), MOST_COUNTED)
        key = fingerprint("", error.type, error.message, error.stack).digest
        counter = self._counters.pop(key, None)
        if counter is None:
            if len(self._counters) >= MOST_COUNTERS:
                self._let_go()
            counter = Counter(pb.ErrorReport(id=str(uuid.uuid4())))
        # The latest one is what people see; it has the same fingerprint.
        latest = pb.ErrorReport()
        latest.CopyFrom(error)
        latest.id, latest.occurrences = counter.report.id, counter.report.occurrences + count
        counter.report = latest
        self._counters[key] = counter

    def due(self, now: float) -> float | None:
        """Seconds until there is a message to send, 0 for now; None when everything is told."""
        if self._sent:
            first, last = self._again
            moment = self._sent_at + min(last, first * 2.0 ** min(self._unanswered, 16))
        else:
            moments = [counter.wait for counter in self._counters.values() if counter.waiting]
            if not moments:
                return None
            moment = max(min(moments), self._sent_at + self._pace)
        return max(0.0, moment - now)

    def next(self, now: float) -> pb.ErrorReports | None:
        """The message that is due."""
        if self.due(now) != 0.0:
            return None
        self._unanswered += bool(self._sent)
        self._sequence += 1
        message = pb.ErrorReports(sequence=self._sequence)
        self._sent, size = [], 0
        for counter in self._counters.values():
            if not counter.waiting or counter.wait > now:
                continue
            size += counter.report.ByteSize()
            if len(self._sent) == MOST_REPORTS or (self._sent and size > MOST_BYTES):
                break
            self._sent.append((counter, counter.report.occurrences))
            message.reports.append(counter.report)
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
                counter.wait = now + REJECTED_SECONDS
            else:
                counter.told = max(counter.told, figure)

    def rewind(self) -> None:
        """A new stream: what was not acknowledged goes out again, and what was rejected."""
        self._sent, self._unanswered = [], 0
        for counter in self._counters.values():
            counter.wait = -math.inf

    def hurry(self) -> None:
        """The next message need not keep its distance, for this may be the last chance."""
        self._sent_at = -math.inf

    def _let_go(self) -> None:
        known = (key for key, counter in self._counters.items() if not counter.waiting)
        del self._counters[next(known, next(iter(self._counters)))]


def from_datagram(body: Mapping[str, Any]) -> pb.ErrorReport:
    """The group of errors in a datagram of the SDK. Raises ValueError, KeyError or TypeError when it is none."""
    told = body["error"]
    count, at = told["count"], told.get("time", 0.0)
    if type(count) is not int or not 0 < count <= MOST_COUNTED:
        raise ValueError(f"{count!r} is not a count")
    context = told.get("context") or {}
    error = pb.ErrorReport(
        type=text(told["type"], LONGEST_WORD),
        message=cut(text(told["message"], LONGEST_MESSAGE), LONGEST_MESSAGE),
        stack=cut(text(told.get("stack", ""), 8 * LONGEST_STACK), LONGEST_STACK),
        context={text(name, 64): text(value, LONGEST_WORD) for name, value in list(context.items())[:MOST_CONTEXT]},
        occurrences=count,
    )
    for word in WORDS:
        setattr(error, word, text(told.get(word, ""), LONGEST_WORD))
    if error.severity.lower() not in SEVERITIES:
        # A word the plane does not know is no reason to lose the report.
        error.context["severity"] = error.severity
        error.severity = ""
    if isinstance(at, (int, float)) and 0 < at < 2**40:
        error.time.FromNanoseconds(int(at * 1e9))
    return error
