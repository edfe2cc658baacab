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

MOST_GROUPS = 100
MOST_PLACES = 256
MOST_CONTEXT = 16
LONGEST_DATAGRAM = 8192
LONGEST_MESSAGE = 2048
LONGEST_STACK = 5120
LONGEST_WORD = 200
LONGEST_VALUE = 256
STACK_FRAMES = 20
LEFT_OUT = "\n… left out …\n"
# What the reporter may say beside type, message and stack; everything else is context.
WORDS = ("severity", "module", "page_url", "user_action", "session")


@dataclass
class Group:
    """Errors of one fingerprint; `count` is how many were not yet sent, the texts are those of the last one."""

    message: str
    type: str
    stack: str
    words: dict[str, str] = field(default_factory=dict)
    context: dict[str, str] = field(default_factory=dict)
    count: int = 0
    time: float = 0.0


class Errors:
    """Groups that wait to be sent. `described` may be called by any thread, the rest by one at a time."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, Group] = OrderedDict()
        # What was seen before, so that a flood costs a look and no formatting.
        self._places: OrderedDict[tuple[object, ...], tuple[str, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._groups)

    def described(
        self,
        error: object,
        type: str,  # noqa: A002 - the word of the wire
        message: str,
        stack: str,
        context: dict[str, Any],
    ) -> tuple[str, Group]:
        """An error and its fingerprint; with an exception, what was not said is taken from it."""
        raised = error if isinstance(error, BaseException) else None
        message = text(message or ("" if error is None else error), LONGEST_MESSAGE)
        type = text(type or (raised.__class__.__name__ if raised else ""), LONGEST_WORD)  # noqa: A001
        stack = cut(stack, LONGEST_STACK)
        place: tuple[object, ...] = (type, message, stack)
        if raised and raised.__traceback__:
            place = (*place, *frames(raised.__traceback__))
            context.setdefault("module", innermost(raised.__traceback__).tb_frame.f_globals.get("__name__", ""))
        known = self._places.get(place)
        if known is None:
            if raised and not stack:
                told = traceback.TracebackException.from_exception(raised, limit=-STACK_FRAMES)
                stack = cut("".join(told.format()), LONGEST_STACK)
            known = self._places[place] = (fingerprint("", type, message, stack).digest, stack)
            if len(self._places) > MOST_PLACES:
                self._places.popitem(last=False)
        group = Group(message, type, known[1], time=time.time())
        for word in WORDS:
            if word in context:
                group.words[word] = text(context.pop(word), LONGEST_VALUE)
        for name, value in list(context.items())[:MOST_CONTEXT]:
            group.context[text(name, 64)] = text(value, LONGEST_VALUE)
        return known[0], group

    def count(self, key: str, group: Group) -> None:
        """Counts one error under its fingerprint; what is known of the last one is what is sent."""
        known = self._groups.get(key)
        group.count = known.count + 1 if known else 1
        if known is None and len(self._groups) >= MOST_GROUPS:
            self._groups.popitem(last=False)
        self._groups[key] = group

    def datagram(self, process: str) -> tuple[str, int, bytes] | None:
        """The group that has waited longest, as (key, count, JSON), or None; `sent` it when it has gone out."""
        if not self._groups:
            return None
        key, group = next(iter(self._groups.items()))
        told = {"type": group.type, "message": group.message, "count": group.count, "time": group.time}
        for stack, context in ((LONGEST_STACK, group.context), (LONGEST_STACK // 2, group.context), (0, {})):
            more = {**group.words, "stack": cut(group.stack, stack), "context": context}
            sent = packed({"process": process, "error": told | more})
            if len(sent) <= LONGEST_DATAGRAM:
                return key, group.count, sent
        # Control characters take six bytes each.
        return (
            key,
            group.count,
            packed({"process": process, "error": told | {"message": cut(group.message, LONGEST_WORD)}}),
        )

    def sent(self, key: str, count: int) -> None:
        """So many of this group have gone out."""
        group = self._groups.get(key)
        if group is not None:
            group.count -= count
            if group.count <= 0:
                del self._groups[key]


def packed(body: dict[str, object]) -> bytes:
    """A datagram."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def text(value: object, most: int) -> str:
    """At most so many characters of the value's text, as text that can be encoded; never raises."""
    try:
        words = value if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be shown is shown by its class
        words = f"<{value.__class__.__name__}>"
    return clean_text(words, most)


def cut(stack: str, most: int) -> str:
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


def innermost(place: TracebackType) -> TracebackType:
    """Where it was raised."""
    while place.tb_next is not None:
        place = place.tb_next
    return place


def frames(place: TracebackType | None) -> tuple[object, ...]:
    """The innermost frames as they can be compared, without a look at any source."""
    found: list[tuple[object, int]] = []
    while place is not None:
        found.append((place.tb_frame.f_code, place.tb_lineno))
        place = place.tb_next
    return tuple(found[-FRAMES:])
