"""The file an auditor takes away: one JSON object to a line, readable with any tool.

Rule: the first line says which log it is, which entries follow, and the peaks of the tree in front of them; then come
the entries in order, each with the hash of its leaf, and every kept checkpoint behind the last entry it covers. The
file ends with the checkpoint of its last entry. Nothing in it is believed unless a signature covers it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = "prunella-audit/1"
LONGEST_LINE = 8 << 20  # characters


@dataclass(frozen=True, slots=True)
class Header:
    """The first line; `keys` are those the plane says it signs with."""

    origin: str
    first: int
    size: int
    peaks: tuple[bytes, ...]
    keys: tuple[str, ...]


class Unreadable(Exception):  # noqa: N818 - says what it means
    """A line that is no line of an export; the text says why."""


def header_line(header: Header) -> str:
    """The first line."""
    return _line(
        {
            "export": FORMAT,
            "origin": header.origin,
            "from": header.first,
            "size": header.size,
            "peaks": [found.hex() for found in header.peaks],
            "keys": list(header.keys),
        }
    )


def entry_line(index: int, leaf: bytes, entry: bytes) -> str:
    """The line of an entry (canonical JSON, embedded as an object)."""
    return f'{{"index":{index},"leaf":"{leaf.hex()}","entry":{entry.decode()}}}\n'


def checkpoint_line(note: str) -> str:
    """The line of a checkpoint."""
    return _line({"checkpoint": note})


def read_header(line: str) -> Header:
    """The header in the first line. Raises Unreadable."""
    fields = read_line(line)
    if fields.get("export") != FORMAT:
        raise Unreadable(f"the first line is no header of an export ({FORMAT})")
    try:
        header = Header(
            _text(fields["origin"]),
            _index(fields["from"]),
            _index(fields["size"]),
            tuple(bytes.fromhex(_text(found)) for found in fields["peaks"]),
            tuple(_text(key) for key in fields["keys"]),
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise Unreadable(f"the header is damaged ({wrong})") from wrong
    if header.first > header.size:
        raise Unreadable("the header begins behind its own end")
    return header


def read_line(line: str) -> Mapping[str, Any]:
    """A line as an object. Raises Unreadable."""
    if len(line) > LONGEST_LINE:
        raise Unreadable("the line is longer than any entry")
    try:
        fields = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as wrong:
        raise Unreadable(f"the line is no JSON ({wrong})") from wrong
    if not isinstance(fields, dict):
        raise Unreadable("the line is no JSON object")
    return fields


def read_entry(fields: Mapping[str, Any]) -> tuple[int, bytes, Mapping[str, str]]:
    """Index, hash of the leaf and fields of an entry's line. Raises Unreadable."""
    try:
        index, leaf, entry = _index(fields["index"]), bytes.fromhex(_text(fields["leaf"])), fields["entry"]
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            raise TypeError("an entry is an object of texts")
    except (KeyError, TypeError, ValueError) as wrong:
        raise Unreadable(f"the line is no entry ({wrong})") from wrong
    return index, leaf, entry


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers may take two values of one name for the true one.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _index(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no index")
    return value


def _line(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"
