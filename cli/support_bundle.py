"""`prunella doctor --bundle FILE`: what somebody else needs to help, in one archive without secrets.

Rule: everything that goes in is a text and passes the redactor; what cannot be had is said in its place. The archive is
readable by its owner alone, and never replaces a file that is there.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import sys
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import redaction
from deploy.local.installation import version
from libs.common.redaction import redacted_environment

if TYPE_CHECKING:
    from cli.doctor_checks import CheckTarget

LOG_BYTES = 512 * 1024
METRICS_BYTES = 4 << 20
MOST_DEAD_LETTERS = 200
TIMEOUT = 10.0
PACKAGES = ("grpcio", "protobuf", "nats-py", "asyncpg", "sqlalchemy", "starlette", "uvicorn", "pydantic", "typer")


async def collect(target: CheckTarget, report: Mapping[str, Any]) -> dict[str, str]:
    """The files of a bundle by name, without secrets. `report` is what the doctor found."""
    from deploy.local import state

    place = state.locate(target.environ).folder
    redactor = redaction.Redactor(await asyncio.to_thread(lambda: list(redaction.in_folder(place))))
    redactor.learn(redaction.in_values(dict(target.plane_file)))
    redactor.learn(redaction.in_environment(target.environ))
    for environ in _environments(target):
        redactor.learn(redaction.in_environment(environ))
    if target.plane:
        redactor.learn([target.plane.key])
    files = {
        "versions.json": _json(_versions()),
        "doctor.json": _json(report),
        "settings.json": _json(_settings(target)),
        "plane.json": _json({name: target.plane_file.get(name) for name in ("addresses", "http", "processes")}),
        "overview.json": await _answer(target, _overview),
        "dead-letters.json": await _answer(target, _dead_letters),
        **{f"logs/{path.name}": _tail(path) for path in sorted((place / "logs").glob("*.log"))},
        **await _metrics(target),
    }
    return {name: redactor.text(text) for name, text in files.items()}


def write(files: Mapping[str, str], target: Path) -> int:
    """Writes the archive; its size in bytes. Raises FileExistsError, OSError."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in sorted(files.items()):
            content = text.encode(errors="replace")
            entry = tarfile.TarInfo(f"prunella-bundle/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(content))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        return file.write(packed.getvalue())


def _environments(target: CheckTarget) -> Iterator[dict[str, str]]:
    """What processes of a plane on this machine were told, where the kernel lets us read it; to know its secrets."""
    processes = target.plane_file.get("processes") or {}
    for pid in {target.plane_file.get("supervisor"), *processes.values()} - {None, 0}:
        try:
            content = Path(f"/proc/{int(pid)}/environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        yield dict(line.partition("=")[::2] for line in content.split("\0") if "=" in line)


def _settings(target: CheckTarget) -> dict[str, Any]:
    """What we were told and, on this machine, what the services were."""
    return {"cli": redacted_environment(target.environ)} | dict(target.plane_file.get("settings") or {})


def _versions() -> dict[str, Any]:
    def installed(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    return {
        "made_at": datetime.now(UTC).isoformat(),
        "prunella": version(),
        "python": sys.version,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else (),
        "packages": {package: installed(package) for package in PACKAGES},
    }


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = max(0, path.stat().st_size - LOG_BYTES)
            # One byte before tells whether the first line is whole.
            file.seek(start)
            content = file.read(LOG_BYTES).decode(errors="replace")
    except OSError as error:
        return f"cannot be read: {error}\n"
    # Half a secret is not recognised; what begins in the middle of a line goes.
    return content.partition("\n")[2] if start else content


async def _answer(target: CheckTarget, ask: Callable[[Any], Awaitable[Any]]) -> str:
    from libs.common.errors import Problem

    if target.plane is None:
        return _json({"missing": "no plane to ask"})
    try:
        return _json(await ask(target.plane))
    except Problem as problem:
        return _json({"missing": problem.message})


async def _overview(plane: Any) -> Any:
    from cli.output import plain

    return plain(await plane.call("ops.GetOverview", limit=100))


async def _dead_letters(plane: Any) -> Any:
    from cli import listings
    from cli.output import plain

    return [plain(one) async for one in listings.dead_letters(plane, MOST_DEAD_LETTERS)]


async def _metrics(target: CheckTarget) -> dict[str, str]:
    import httpx2

    async def fetch(client: httpx2.AsyncClient, address: str) -> str:
        try:
            answer = await client.get(f"http://{address}/metrics/")
        except httpx2.HTTPError as error:
            return f"missing: {error or type(error).__name__}\n"
        return answer.text[:METRICS_BYTES]

    known: Mapping[str, str] = target.plane_file.get("http") or {}
    async with httpx2.AsyncClient(trust_env=False, timeout=TIMEOUT) as client:
        texts = await asyncio.gather(*(fetch(client, address) for address in known.values()))
    return {f"metrics/{service}.txt": text for service, text in zip(known, texts, strict=True)}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
