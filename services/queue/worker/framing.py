"""Cuts a stream of bytes into lines without ever holding more than one bounded line. Pure.

Rule: a line longer than the bound is thrown away as it comes. Of it only the first and last bytes are kept, because the
id of the call it answers stands at one end or the other (the SDKs write it first or last).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 1024 * 1024
EDGE_BYTES = 256
ID_FIRST = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18}|"[^"\\]{1,64}")\s*,')
ID_LAST = re.compile(rb'"id"\s*:\s*(\d{1,18}|"[^"\\]{1,64}")\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
REQUEST_OR_NOTIFICATION = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"method"\s*:')


@dataclass(frozen=True, slots=True)
class OversizedLine:
    """A line that was refused: how many bytes it had, and its two ends."""

    size: int
    head: bytes
    tail: bytes

    @property
    def request_id(self) -> int | str | None:
        """The id of the call it answers; None when neither end tells."""
        found = ID_FIRST.search(self.head) or ID_LAST.search(self.tail)
        if found is None:
            return None
        text = found[1].decode(errors="replace")
        return text.strip('"') if text.startswith('"') else int(text)

    @property
    def unsolicited(self) -> bool:
        """Whether nobody waits for it: a notification or a request of the server's own."""
        return REQUEST_OR_NOTIFICATION.search(self.head) is not None


class LineFramer:
    """The lines of one stream."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""
        self._tail = b""

    def feed(self, chunk: bytes) -> Iterator[bytes | OversizedLine]:
        """The lines that a chunk completes."""
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            self._add(part)
            yield self._end()
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._longest:
            if part:
                self._parts.append(part)
            return
        if self._parts or not self._head:
            line = b"".join(self._parts) + part[:EDGE_BYTES]
            self._head, self._tail, self._parts = line[:EDGE_BYTES], line[-EDGE_BYTES:], []
        self._tail = (self._tail + part[-EDGE_BYTES:])[-EDGE_BYTES:]

    def _end(self) -> bytes | OversizedLine:
        line: bytes | OversizedLine = b"".join(self._parts)
        if self._size > self._longest:
            line = OversizedLine(self._size, self._head, self._tail)
        self._parts, self._size, self._head, self._tail = [], 0, b"", b""
        return line
