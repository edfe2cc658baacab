"""Messages: what people read, the same words on every channel.

Rule: the title says the worst in one line and how many facts there are; each line is a fact as the timeline tells it,
with what to type next. What is not shown is counted. The id is the delivery's and never changes, so a receiver that
gets a message twice can tell. Quotations from plugins are text, never markup: each channel escapes them its own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from services.ops.notify.batching import Batch
from services.ops.notify.model import Notice
from services.ops.severity import Severity

TITLE = 150


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one channel: `id` is the delivery's, `notification` that of what it tells of; `asks` says whether
    somebody else is told when nobody answers.
    """

    id: str
    notification: str
    route: str
    step: int
    title: str
    severity: Severity
    time: datetime
    facts: int
    kinds: Mapping[str, int]
    lines: tuple[Notice, ...]
    test: bool = False
    asks: bool = False

    @property
    def hidden(self) -> int:
        """How many facts have no line."""
        return max(0, self.facts - len(self.lines))

    @property
    def text(self) -> str:
        """All of it in plain text."""
        lines = []
        for line in self.lines:
            lines.append(f"{line.time:%H:%M:%S} UTC · {line.severity.name.lower()} · {line.headline}")
            lines += [f"    → {line.command}"] if line.command else []
        if self.hidden:
            lines.append(f"… and {self.hidden} more: {breakdown(self.kinds)}")
        if self.asks:
            lines += ["", f"Seen it? Say so, and nobody else is asked: prunella notifications ack {self.notification}"]
        return "\n".join(lines)


def title(batch: Batch, *, step: int = 0) -> str:
    """The worst in one line, and how many there are."""
    worst = batch.lines[0].headline if batch.lines else "nothing"
    again = "nobody answered: " if step else ""
    more = f" (and {batch.facts - 1} more)" if batch.facts > 1 else ""
    line = f"[{batch.severity.name.lower()}] {again}{worst}"
    room = TITLE - len(more)
    return (line if len(line) <= room else f"{line[: room - 1]}…") + more


def breakdown(kinds: Mapping[str, int]) -> str:
    """How many of each kind, most first."""
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} × {kind.replace('_', ' ')}" for kind, count in ranked)


def trial(id_: str, channel: str, actor: str, now: datetime) -> Message:
    """What a test of a channel says."""
    sentence = f"{actor} tests the channel {channel}: if you read this, it works"
    line = Notice(id_, now, "test", Severity.LOW, sentence, "test")
    return Message(id_, id_, "", 0, f"[test] {sentence}", Severity.LOW, now, 1, {"test": 1}, (line,), test=True)
