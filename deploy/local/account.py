"""Who the database runs as: PostgreSQL refuses to be root.

Rule: we use a user that exists, `postgres` or else `nobody`. We never add one, and never change the mode or owner of
anything that we did not make; what that user cannot reach is copied to where it can.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """A user of this machine without privileges."""

    name: str
    uid: int
    gid: int

    def reaches(self, path: Path) -> bool:
        """Whether this user may pass through every folder above `path` (which need not exist yet)."""
        return all(self.passes(folder) for folder in path.resolve().parents if folder.exists())

    def passes(self, folder: Path) -> bool:
        """Whether this user may pass through one folder."""
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def unprivileged() -> Account | None:
    """The account for the database when we are root; None when we are not, and it runs as ourselves.

    Raises LookupError on a machine that has neither user.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise LookupError(
        "PostgreSQL cannot run as root, and this machine has no user 'postgres' or 'nobody'. "
        "Run as another user, or set DATABASE_URL to a server of yours."
    )


def own_folder(path: Path, account: Account | None) -> Path:
    """Makes a folder that belongs to the account alone (to us, when there is none)."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    if account:
        shutil.chown(path, account.uid, account.gid)
    return path
