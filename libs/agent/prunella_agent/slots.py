"""Two slots for releases and the link that says which one runs.

Rule: a release is unpacked beside its slot and renamed into it whole; `current` is replaced by a rename and the folder
is synced, so that a death at any moment leaves either the old or the new target, never none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from prunella_agent.archive import room
from prunella_agent.conditions import check_room
from prunella_agent.releases import sync_folder, unpack

NAMES = ("a", "b")


class Slots:
    """The slots of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._slots = folder / "slots"
        self._current = folder / "current"
        self._slots.mkdir(parents=True, exist_ok=True)

    def path(self, slot: str) -> Path:
        """Where a slot's files are."""
        return self._slots / slot

    def other(self, slot: str) -> str:
        """The other slot."""
        return NAMES[1] if slot == NAMES[0] else NAMES[0]

    def current(self) -> str:
        """The slot that `current` names; empty when there is none."""
        return self._current.readlink().name if self._current.is_symlink() else ""

    def check(self) -> None:
        """Raises OSError when nothing can be put beside the slots."""
        check_room(self._slots, 1)

    def room(self, artifact: bytes) -> Callable[[], None]:
        """A check whether a release finds room beside the slots now. Raises ReleaseError."""
        size = room(artifact)
        return lambda: check_room(self._slots, size)

    def stage(self, slot: str, artifact: bytes) -> None:
        """Unpacks an artifact beside a slot, whose files stay as they are; all of it or nothing.

        Raises ReleaseError, and OSError when the disk does not take it.
        """
        draft = self._slots / f"{slot}.new"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            unpack(artifact, draft)
        except OSError:
            # Half a release would keep the disk full.
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_folder(self._slots)

    def fill(self, slot: str) -> None:
        """Replaces a slot's files by those staged beside it; nothing happens when nothing is staged."""
        draft = self._slots / f"{slot}.new"
        if not draft.exists():
            return
        shutil.rmtree(self.path(slot), ignore_errors=True)
        draft.rename(self.path(slot))
        sync_folder(self._slots)

    def point(self, slot: str) -> None:
        """Makes `current` name this slot; durable when this returns."""
        draft = self.folder / "current.new"
        draft.unlink(missing_ok=True)
        draft.symlink_to(Path("slots") / slot)
        draft.replace(self._current)
        sync_folder(self.folder)
