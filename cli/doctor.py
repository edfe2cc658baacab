"""`prunella doctor`: what is well, what is not, and the line to type."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Json
from cli.output import console, safe, show_json
from cli.plane_client import FAILED, USAGE_ERROR, fail, guarded

if TYPE_CHECKING:
    from cli.doctor_checks import CheckTarget, Finding

SIGNS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]·[/]"}


Bundle = Annotated[
    Path | None,
    typer.Option("--bundle", help="Also write status, settings, logs and metrics there (tar.gz), without secrets."),
]


def doctor(json: Json = False, bundle: Bundle = None) -> None:
    """Looks at everything a plane needs here, and says what to type where something is missing."""
    if bundle and bundle.exists():
        fail(f"{bundle} is there already; name another file", USAGE_ERROR)
    guarded(lambda: asyncio.run(_examine(json=json, bundle=bundle)))


async def _examine(*, json: bool, bundle: Path | None) -> int:
    from cli.doctor_checks import CHECKS

    target = _check_target()
    found: list[Finding] = []
    try:
        for check in CHECKS:
            findings = await check(target)
            found += findings
            if not json:
                for finding in findings:
                    _show(finding)
        dead_letters = await _dead_letters(target)
        wrong = sum(finding.ok is False for finding in found)
        report = {"ok": wrong == 0, "checks": [asdict(finding) for finding in found], "dead_letters": dead_letters}
        if bundle:
            await _bundle(target, report, bundle)
    finally:
        if target.plane:
            await target.plane.close()
    if json:
        show_json(report)
    else:
        typer.echo(f"\n{wrong} of {len(found)} checks say no" if wrong else f"\nall {len(found)} checks are well")
    return FAILED if wrong else 0


async def _bundle(target: CheckTarget, report: dict[str, Any], file: Path) -> None:
    from cli import support_bundle
    from cli.formatting import byte_size

    try:
        written = support_bundle.write(await support_bundle.collect(target, report), file)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror or error}")
    typer.echo(f"wrote {file} ({byte_size(written)}); look into it before you give it away", err=True)


def _check_target() -> CheckTarget:
    from cli import plane_client
    from cli.doctor_checks import CheckTarget

    try:
        plane_file = plane_client.plane_file(os.environ)
        return CheckTarget(os.environ, plane_client.find(os.environ), plane_file)
    except plane_client.PlaneNotFound:
        return CheckTarget(os.environ)


async def _dead_letters(target: CheckTarget) -> list[dict[str, Any]]:
    """The dead letters, newest first; none when ops cannot be asked."""
    from cli.output import plain
    from libs.common.errors import Problem

    if target.plane is None:
        return []
    try:
        answer = await target.plane.call("ops.ListDeadLetters")
    except Problem:
        return []
    return [plain(letter) for letter in answer.dead_letters]


def _show(finding: Finding) -> None:
    remedy = f"  [bold]→ {safe(finding.remedy)}[/]" if finding.remedy else ""
    console().print(f"{SIGNS[finding.ok]} {safe(finding.name):<20} {safe(finding.detail)}{remedy}")
