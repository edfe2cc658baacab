"""The agent's journal: one JSON object per line, on the disk before the step it speaks of has an effect.

Rule: appending returns after fsync; an entry that cannot be written whole is taken back and raised. A line that was
torn by a death is the last one and never happened; a broken line anywhere else means that the disk lies, and the agent
says so instead of guessing. A journal that grew long is replaced by one snapshot, in one rename. One that cannot be
written is read all the same; each entry then fails until the disk takes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from prunella_agent.archive import sync_folder
from prunella_agent.state import Entry, State, after, fold

log = logging.getLogger("prunella_agent.journal")

LONG = 2000


class JournalBroken(Exception):  # noqa: N818 - it is a state of the disk, shown to an operator
    """A line that is not the last one cannot be read."""


class Journal:
    """The journal of one folder and the state that its entries make."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.folder = path.parent
        entries, self._size = read(path)
        self._descriptor: int | None = None
        self._lines = len(entries)
        self.state: State = fold(entries)
        try:
            self._open()
        except OSError as error:
            log.warning("%s cannot be written (%s); it is tried again with the next entry", path, error)
            return
        if self._lines > LONG:
            self._shorten()

    @property
    def writable(self) -> bool:
        """Whether it could be opened to write."""
        return self._descriptor is not None

    def check(self) -> None:
        """Raises OSError when no entry could be written now; the one it writes changes nothing."""
        self._append({"step": "CHECKED"})

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
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # The next line must not be glued to half of another one.
            os.ftruncate(descriptor, self._size)
            os.fsync(descriptor)
            sync_folder(self._path.parent)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _append(self, entry: Entry) -> None:
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        try:
            self._size += put(self._descriptor, entry)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                self._open()
            raise
        self._lines += 1

    def _shorten(self) -> None:
        draft = self._path.with_name(self._path.name + ".new")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            size = put(descriptor, self.state.snapshot())
            draft.replace(self._path)
        except OSError:
            # The long one says the same; the next entry tries again. Half a draft must not take what room there is.
            os.close(descriptor)
            with contextlib.suppress(OSError):
                draft.unlink()
            return
        self.close()
        self._descriptor, self._lines, self._size = descriptor, 1, size
        # The rename is not durable yet, and need not be: both say the same.
        with contextlib.suppress(OSError):
            sync_folder(self._path.parent)


def put(descriptor: int, entry: Entry) -> int:
    """Appends one entry to a file, durable when this returns; how many bytes it has."""
    line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
    size = len(line)
    while line:
        line = line[os.write(descriptor, line) :]
    os.fsync(descriptor)
    return size


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
