"""The agent's journal: one JSON object per line, on the disk before the step it speaks of has an effect.

Rule: appending returns after fsync; an entry that cannot be written whole is taken back and raised. A line that was
torn by a death is the last one and never happened; a broken line anywhere else means that the disk lies, and the agent
says so instead of guessing. A journal that grew long is replaced by one snapshot, in one rename.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prunella_agent.archive import sync_folder
from prunella_agent.state import Entry, State, after, fold

LONG = 2000


class JournalBroken(Exception):  # noqa: N818 - it is a state of the disk, shown to an operator
    """A line that is not the last one cannot be read."""


class Journal:
    """The journal of one folder and the state that its entries make."""

    def __init__(self, path: Path) -> None:
        self._path = path
        entries, good = read(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._descriptor, good)
        os.fsync(self._descriptor)
        sync_folder(path.parent)
        self._lines = len(entries)
        self.state: State = fold(entries)
        if self._lines > LONG:
            self._shorten()

    def write(self, step: str, **fields: Any) -> State:
        """Appends one entry and returns the state after it; durable when this returns."""
        entry: Entry = {"step": step, **fields}
        self._append(entry)
        self.state = after(self.state, entry)
        if self._lines > LONG:
            self._shorten()
        return self.state

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)

    def _append(self, entry: Entry) -> None:
        size = os.fstat(self._descriptor).st_size
        try:
            put(self._descriptor, entry)
        except OSError:
            # The next line must not be glued to half of this one.
            os.ftruncate(self._descriptor, size)
            raise
        self._lines += 1

    def _shorten(self) -> None:
        draft = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            put(descriptor, self.state.snapshot())
            draft.replace(self._path)
        except OSError:
            # The long one says the same; the next entry tries again.
            os.close(descriptor)
            return
        os.close(self._descriptor)
        self._descriptor, self._lines = descriptor, 1
        sync_folder(self._path.parent)


def put(descriptor: int, entry: Entry) -> None:
    """Appends one entry to a file; durable when this returns."""
    line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
    while line:
        line = line[os.write(descriptor, line) :]
    os.fsync(descriptor)


def read(path: Path) -> tuple[list[Entry], int]:
    """All whole entries of a journal and how many bytes they take. Raises JournalBroken."""
    if not path.exists():
        return [], 0
    entries: list[Entry] = []
    good = 0
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
            entry["step"]
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines) - 1:
                break
            raise JournalBroken(f"{path}: line {number} cannot be read; restore the file or enrol anew") from error
        entries.append(entry)
        good += len(line) + 1
    return entries, good
