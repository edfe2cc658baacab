"""Asking before something is changed.

Rule: what will happen is shown first; `--yes` agrees beforehand. Where nobody can answer, nothing is changed. Questions
go to standard error, so that `--json` stays one document.
"""

from __future__ import annotations

import typer

from cli.plane_client import FAILED, USAGE_ERROR, fail


def confirm(question: str, *, yes: bool) -> None:
    """Goes on when a person says yes; ends the command when they say no, or when nobody is there."""
    if yes:
        return
    try:
        answer = typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)
        fail("nobody answered, so nothing was changed; add --yes to go on without being asked", USAGE_ERROR)
    if not answer:
        fail("nothing was changed", FAILED)
