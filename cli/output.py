"""What a command prints: JSON for programs, tables that fit the terminal for people.

Rule: `--json` prints one JSON document of proto JSON with the field names of the protos; nothing else goes to standard
output then. Colour only says again what a word already says.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

WIDE = 400  # columns when we write into a pipe, where nothing needs to be cut
LEAST = 16  # columns that the last column of a table gets at least, as long as others can go
GUTTER = 2

# DEL, the other control characters of a terminal, and what no encoding knows.
_OBEYED = re.compile("[\x7f-\x9f\ud800-\udfff]")

COLOURS = {
    "healthy": "green", "active": "green", "success": "green", "mitigated": "green", "closed": "green",
    "serving": "green", "released": "green", "low": "cyan", "medium": "yellow", "high": "red", "critical": "bold red",
    "unhealthy": "yellow", "starting": "yellow", "away": "cyan", "down": "red", "quarantined": "red", "open": "red",
    "in_progress": "yellow", "escalated": "bold magenta",
    "flapping": "bold magenta", "pending": "yellow", "staging": "yellow", "staged": "yellow",
    "applying": "yellow", "probation": "yellow", "committing": "yellow", "rolling_back": "yellow",
    "rolled_back": "magenta", "rollback_failed": "bold red", "failed": "red", "refused": "magenta",
    "unconfirmed": "bold red", "engaged": "bold red", "not serving": "red", "retired": "dim", "cancelled": "dim",
    "queued": "yellow", "sending": "yellow", "sent": "green", "suppressed": "dim", "acknowledged": "cyan",
    "new": "yellow", "triaging": "yellow", "resolved_pending": "cyan", "resolved": "green", "processing": "yellow",
    "retrying": "magenta", "completed": "green", "candidate": "yellow", "demoted": "magenta", "approved": "green",
    "rejected": "magenta", "expired": "dim", "awaiting_approval": "bold yellow", "void": "dim", "waiting": "dim",
    "withdrawn": "dim", "running": "yellow", "soaking": "yellow", "paused": "bold yellow", "succeeded": "green",
    "halted": "bold red", "aborted": "magenta", "ongoing": "bold red", "over": "green", "allow": "green",
    "ask": "yellow", "hold": "yellow", "refuse": "magenta", "started": "yellow", "switched": "yellow",
    "reverted": "magenta", "broken": "red", "silent": "red", "offline": "dim", "skipped": "dim",
    "watched": "cyan", "watching": "cyan", "proven": "green", "unproven": "dim", "superseded": "dim",
}  # fmt: skip


def console(*, err: bool = False) -> Console:
    """Standard output (or error), wide when it is no terminal."""
    from rich.console import Console

    made = Console(stderr=err, highlight=False)
    if made.is_terminal or os.environ.get("COLUMNS"):
        return made
    return Console(stderr=err, highlight=False, width=WIDE)


def plain(message: Message) -> dict[str, Any]:
    """A message as proto JSON, every field named as in the protos, empty ones too."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def show_json(value: Any, *, indent: int | None = 2) -> None:
    """One JSON document. What a terminal would obey is escaped; JSON itself leaves some of it as it is."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    typer.echo(_OBEYED.sub(lambda found: f"\\u{ord(found.group()):04x}", text))


def show_text(text: str) -> None:
    """Lines from elsewhere, without what a terminal would obey."""
    from libs.common.text import clean_text

    typer.echo(clean_text(text))


async def show_json_list(entries: AsyncIterator[Message]) -> None:
    """One JSON array."""
    show_json([plain(entry) async for entry in entries])


def coloured(state: str) -> str:
    """A word of state with its colour."""
    from rich.markup import escape

    colour = COLOURS.get(state)
    return f"[{colour}]{escape(state)}[/]" if colour else escape(state)


def safe(text: object) -> str:
    """Text from elsewhere: no markup, no control characters, one line."""
    from rich.markup import escape

    return escape("".join(letter if letter.isprintable() else " " for letter in str(text)))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, err: bool = False) -> None:
    """A table; the last column takes the room that is left. `empty` is said when there are no rows.

    With `err` it goes to standard error: what is shown before a question is no answer.

    A column whose name begins with `?` goes when the screen is too narrow for all, the last of them first.
    """
    from rich import box
    from rich.table import Table

    listed = list(rows)
    if not listed:
        typer.echo(empty, err=True)
        return
    screen = console(err=err)
    visible, room = _fit(columns, listed, screen.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for place in visible[:-1]:
        table.add_column(columns[place].lstrip("?"), no_wrap=True, overflow="ellipsis")
    table.add_column(columns[visible[-1]].lstrip("?"), overflow="ellipsis", no_wrap=True, max_width=room)
    for row in listed:
        table.add_row(*(row[place] for place in visible))
    screen.print(table)


def _fit(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[int], int]:
    """Which columns are shown, and how wide the last may be."""
    from rich.text import Text

    widths = [
        max(len(name.lstrip("?")), *(Text.from_markup(row[place]).cell_len for row in rows))
        for place, name in enumerate(columns)
    ]
    visible = list(range(len(columns)))
    while True:
        # One column of the frame at each side of the table.
        room = width - sum(widths[place] + GUTTER + 1 for place in visible[:-1]) - GUTTER
        optional = [place for place in visible[:-1] if columns[place].startswith("?")]
        if room >= min(LEAST, widths[visible[-1]]) or not optional:
            return visible, max(1, room)
        visible.remove(optional[-1])


def show_fields(fields: Iterable[tuple[str, str]], *, err: bool = False) -> None:
    """Name and value, one per line; empty values are left out. With `err` on standard error."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value:
            table.add_row(name, value)
    console(err=err).print(table)
