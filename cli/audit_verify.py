"""`prunella audit verify`: an export proves itself, or the first entry that is wrong is named.

Rule: no plane and no database are needed; an export, keys and checkpoints that were kept elsewhere are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting
from cli.options import Json
from cli.output import show_json
from cli.plane_client import FAILED, guarded

if TYPE_CHECKING:
    from services.ops.audit.note import Checkpoint, Key
    from services.ops.audit.verify import Verification

Known = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", "-c", help="A checkpoint that was kept elsewhere; repeatable.", exists=True),
]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", "-k", help="A file with keys of the log, or a key as `prunella audit key` prints it."),
]


def verify(
    file: Annotated[Path, typer.Argument(help="An export.", exists=True, dir_okay=False, readable=True)],
    checkpoint: Known = None,
    key: Keys = None,
    json: Json = False,
) -> None:
    """Verifies an export without a plane; 1 and the first bad entry when it is not what was logged."""

    def work() -> int:
        from services.ops.audit.verify import VerificationError, verify
        from services.ops.wire.audit import contradiction

        keys = [one for text in key or [] for one in _keys(text)]
        known = [_checkpoint(path) for path in checkpoint or []]
        try:
            verification = verify(_lines(file), keys=keys, known=known, check_entry=contradiction)
        except VerificationError as found:
            if json:
                show_json({"verified": False, "index": found.index, "detail": found.detail})
            else:
                typer.echo(f"prunella: entry {found.index}: {found.detail}", err=True)
            return FAILED
        if json:
            show_json({"verified": True, **_verification_fields(verification)})
        else:
            typer.echo(_sentence(verification))
        return 0

    guarded(work)


def _lines(path: Path) -> Iterator[str]:
    from services.ops.audit.export import LONGEST_LINE

    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        while line := file.readline(LONGEST_LINE + 1):
            yield line


def _keys(text: str) -> list[Key]:
    """Keys from a file with one to a line, or one as it is typed. Raises Invalid."""
    from services.ops.audit import note

    path = Path(text)
    lines = path.read_text().splitlines() if path.is_file() else [text]
    return [note.read_key(line) for line in lines if line.strip()]


def _checkpoint(path: Path) -> Checkpoint:
    from services.ops.audit import note

    return note.read(path.read_text())


def _verification_fields(verification: Verification) -> dict[str, Any]:
    return {
        "origin": verification.origin,
        "first": verification.first,
        "size": verification.size,
        "root": verification.root.hex(),
        "checkpoints": verification.checkpoints,
        "known_checkpoints": verification.known,
        "key": verification.key,
        "key_given": verification.pinned,
    }


def _sentence(verification: Verification) -> str:
    what = (
        f"entries {verification.first} to {verification.size - 1}"
        if verification.size > verification.first
        else "no entries"
    )
    signed = f"{formatting.plural(verification.checkpoints, 'checkpoint')} signed by {verification.key}"
    lines = [f"verified: {what} of {verification.origin}, root {verification.root.hex()}", f"  {signed}"]
    if verification.known:
        lines.append(f"  nothing changed since {formatting.plural(verification.known, 'checkpoint')} kept elsewhere")
    else:
        lines.append(
            "  without a checkpoint kept elsewhere (--checkpoint) a log that was built anew looks like this too"
        )
    if not verification.pinned:
        lines.append("  the key is the one the export names; give the one you know with --key")
    return "\n".join(lines)
