"""`prunella doctor`: what is well, what is not, and the line to type."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, console, safe, show_json
from cli.plane import FAILED, WRONG, fail, guarded

if TYPE_CHECKING:
    from cli.checks import Finding, Patient

SIGNS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]·[/]"}


Bundle = Annotated[
    Path | None,
    typer.Option("--bundle", help="Also write status, settings, logs and metrics there (tar.gz), without secrets."),
]


def doctor(json: Json = False, bundle: Bundle = None) -> None:
    """Looks at everything a plane needs here, and says what to type where something is missing."""
    if bundle and bundle.exists():
        fail(f"{bundle} is there already; name another file", WRONG)
    guarded(lambda: asyncio.run(_examine(json=json, bundle=bundle)))


async def _examine(*, json: bool, bundle: Path | None) -> int:
    from cli.checks import CHECKS

    patient = _patient()
    found: list[Finding] = []
    try:
        for check in CHECKS:
            findings = await check(patient)
            found += findings
            if not json:
                for finding in findings:
                    _show(finding)
        letters = await _letters(patient)
        wrong = sum(finding.ok is False for finding in found)
        report = {"ok": wrong == 0, "checks": [asdict(finding) for finding in found], "dead_letters": letters}
        if bundle:
            await _bundle(patient, report, bundle)
    finally:
        if patient.plane:
            await patient.plane.close()
    if json:
        show_json(report)
    else:
        typer.echo(f"\n{wrong} of {len(found)} checks say no" if wrong else f"\nall {len(found)} checks are well")
    return FAILED if wrong else 0


async def _bundle(patient: Patient, report: dict[str, Any], target: Path) -> None:
    from cli import bundle
    from cli.words import size

    try:
        written = bundle.write(await bundle.gather(patient, report), target)
    except OSError as error:
        fail(f"{target} cannot be written: {error.strerror or error}")
    typer.echo(f"wrote {target} ({size(written)}); look into it before you give it away", err=True)


def _patient() -> Patient:
    from cli import plane
    from cli.checks import Patient

    try:
        described = plane.described(os.environ)
        return Patient(os.environ, plane.find(os.environ), described)
    except plane.Absent:
        return Patient(os.environ)


async def _letters(patient: Patient) -> list[dict[str, Any]]:
    """The dead letters, newest first; none when ops cannot be asked."""
    from cli.output import plain
    from libs.common.errors import Problem
    from prunella.v1.ops_pb2 import ListDeadLettersRequest

    if patient.plane is None:
        return []
    try:
        answer = await patient.plane.ops.ListDeadLetters(ListDeadLettersRequest(), timeout=5)
    except Problem:
        return []
    return [plain(letter) for letter in answer.dead_letters]


def _show(finding: Finding) -> None:
    remedy = f"  [bold]→ {safe(finding.remedy)}[/]" if finding.remedy else ""
    console().print(f"{SIGNS[finding.ok]} {safe(finding.name):<20} {safe(finding.said)}{remedy}")
