"""The errors of one process, grouped by fingerprint until they are sent to the supervisor.

Rule: a flood is one group with a count. At most 100 groups wait; when there are more, the one that has waited longest
is let go (the beats still count its errors). A group is one datagram of at most 8 KiB: message, stack and context are
cut, a stack in its middle, because its ends say the most. What could not be sent keeps its count. Standard library
only.
"""

from __future__ import annotations

import json
import time
import traceback
from collections import OrderedDict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from prunella_agent.fingerprint import FRAMES, fingerprint
from prunella_agent.text import clean_text

MAX_GROUPS = 100
MAX_CACHED = 256
MAX_CONTEXT = 16
MAX_DATAGRAM = 8192
MAX_MESSAGE = 2048
MAX_STACK = 5120
MAX_ATTRIBUTE = 200
MAX_VALUE = 256
STACK_FRAMES = 20
LEFT_OUT = "\n… left out …\n"
# What the reporter may say beside type, message and stack; everything else is context.
ATTRIBUTES = ("severity", "module", "page_url", "user_action", "session")


@dataclass
class ErrorGroup:
    """Errors of one fingerprint; `count` is how many were not yet sent, the texts are those of the last one."""

    message: str
    type: str
    stack: str
    attributes: dict[str, str] = field(default_factory=dict)
    context: dict[str, str] = field(default_factory=dict)
    count: int = 0
    time: float = 0.0


class ErrorGroups:
    """Groups that wait to be sent. `describe` may be called by any thread, the rest by one at a time."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, ErrorGroup] = OrderedDict()
        # What was seen before, so that a flood costs a look and no formatting.
        self._fingerprints: OrderedDict[tuple[object, ...], tuple[str, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._groups)

    def describe(
        self,
        error: object,
        type: str,  # noqa: A002 - its name on the wire
        message: str,
        stack: str,
        context: dict[str, Any],
    ) -> tuple[str, ErrorGroup]:
        """An error and its fingerprint; with an exception, what is missing is taken from it."""
        raised = error if isinstance(error, BaseException) else None
        message = printable(message or ("" if error is None else error), MAX_MESSAGE)
        type = printable(type or (raised.__class__.__name__ if raised else ""), MAX_ATTRIBUTE)  # noqa: A001
        stack = truncate_middle(stack, MAX_STACK)
        key: tuple[object, ...] = (type, message, stack)
        if raised and raised.__traceback__:
            key = (*key, *frame_keys(raised.__traceback__))
            context.setdefault("module", innermost_frame(raised.__traceback__).tb_frame.f_globals.get("__name__", ""))
        known = self._fingerprints.get(key)
        if known is None:
            if raised and not stack:
                trace = traceback.TracebackException.from_exception(raised, limit=-STACK_FRAMES)
                stack = truncate_middle("".join(trace.format()), MAX_STACK)
            known = self._fingerprints[key] = (fingerprint("", type, message, stack).digest, stack)
            if len(self._fingerprints) > MAX_CACHED:
                self._fingerprints.popitem(last=False)
        group = ErrorGroup(message, type, known[1], time=time.time())
        for name in ATTRIBUTES:
            if name in context:
                group.attributes[name] = printable(context.pop(name), MAX_VALUE)
        for name, value in list(context.items())[:MAX_CONTEXT]:
            group.context[printable(name, 64)] = printable(value, MAX_VALUE)
        return known[0], group

    def add(self, key: str, group: ErrorGroup) -> None:
        """Counts one error under its fingerprint; what is known of the last one is what is sent."""
        known = self._groups.get(key)
        group.count = known.count + 1 if known else 1
        if known is None and len(self._groups) >= MAX_GROUPS:
            self._groups.popitem(last=False)
        self._groups[key] = group

    def datagram(self, process: str) -> tuple[str, int, bytes] | None:
        """The group that has waited longest, as (key, count, JSON), or None; `sent` it when it has gone out."""
        if not self._groups:
            return None
        key, group = next(iter(self._groups.items()))
        body = {"type": group.type, "message": group.message, "count": group.count, "time": group.time}
        for stack, context in ((MAX_STACK, group.context), (MAX_STACK // 2, group.context), (0, {})):
            texts = {**group.attributes, "stack": truncate_middle(group.stack, stack), "context": context}
            sent = encode({"process": process, "error": body | texts})
            if len(sent) <= MAX_DATAGRAM:
                return key, group.count, sent
        # Control characters take six bytes each.
        return (
            key,
            group.count,
            encode({"process": process, "error": body | {"message": truncate_middle(group.message, MAX_ATTRIBUTE)}}),
        )

    def sent(self, key: str, count: int) -> None:
        """So many of this group have gone out."""
        group = self._groups.get(key)
        if group is not None:
            group.count -= count
            if group.count <= 0:
                del self._groups[key]


def encode(body: dict[str, object]) -> bytes:
    """A datagram."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def printable(value: object, most: int) -> str:
    """At most so many characters of the value's text, as text that can be encoded; never raises."""
    try:
        shown = value if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be shown is shown by its class
        shown = f"<{value.__class__.__name__}>"
    return clean_text(shown, most)


def truncate_middle(stack: str, most: int) -> str:
    """The stack without its middle when it has more than so many bytes."""
    if len(stack) > 2 * most:
        stack = stack[:most] + LEFT_OUT + stack[-most:]
    raw = clean_text(stack).encode()
    if len(raw) <= most:
        return raw.decode()
    half = max(0, (most - len(LEFT_OUT.encode())) // 2)
    if not half:
        return ""
    return raw[:half].decode("utf-8", "ignore") + LEFT_OUT + raw[-half:].decode("utf-8", "ignore")


def innermost_frame(traceback_: TracebackType) -> TracebackType:
    """Where it was raised."""
    while traceback_.tb_next is not None:
        traceback_ = traceback_.tb_next
    return traceback_


def frame_keys(traceback_: TracebackType | None) -> tuple[object, ...]:
    """The innermost frames as they can be compared, without a look at any source."""
    found: list[tuple[object, int]] = []
    while traceback_ is not None:
        found.append((traceback_.tb_frame.f_code, traceback_.tb_lineno))
        traceback_ = traceback_.tb_next
    return tuple(found[-FRAMES:])
