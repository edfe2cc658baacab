"""Whether the audit log tells what was played: taken away as an auditor takes it, verified without the plane, read.

Rule: nothing of the log is believed before `prunella audit verify` believes it, with a key and a checkpoint that came
another way than the export. Each difference is a line.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.demo.operator_client import CALL_SECONDS, OperatorClient
from deploy.demo.scenarios.scenario import outcome
from libs.common.facts import fact_name
from prunella.v1 import audit_pb2
from prunella.v1.events_pb2 import Event

LOGGED_SECONDS = 30.0
LOOK_SECONDS = 0.5
EXPORT_SECONDS = 60.0


async def compare(
    client: OperatorClient, folder: Path, fact_counts: Mapping[str, int], scenarios: Sequence[Mapping[str, Any]]
) -> tuple[int, list[str]]:
    """How many entries the log proves, and where it differs from the facts and the scenarios.

    The export stays in `folder`, with the key and the checkpoint it was verified with.
    """
    signed = await checkpoint(client, sum(fact_counts.values()))
    file, note, keys = (folder / name for name in ("audit.jsonl", "audit-checkpoint.txt", "audit-keys.txt"))
    note.write_text(signed.checkpoint.note)
    keys.write_text("".join(f"{key}\n" for key in signed.keys))
    request = audit_pb2.ExportAuditRequest(size=signed.checkpoint.size)
    with file.open("w") as lines:
        async for part in client.ops.ExportAudit(request, timeout=EXPORT_SECONDS):
            lines.write(part.lines)
    if doubt := await verified(file, note, keys):
        return 0, [f"the audit log proves nothing: {doubt}"]
    events_logged = events(file)
    return len(events_logged), differences(events_logged, fact_counts, scenarios)


async def checkpoint(client: OperatorClient, size: int) -> audit_pb2.GetAuditCheckpointResponse:
    """The latest checkpoint, once it covers so many facts; what it covers after 30 s when it does not."""
    deadline = asyncio.get_running_loop().time() + LOGGED_SECONDS
    while True:
        found = await client.ops.GetAuditCheckpoint(audit_pb2.GetAuditCheckpointRequest(), timeout=CALL_SECONDS)
        if found.checkpoint.size >= size or asyncio.get_running_loop().time() > deadline:
            return found
        await asyncio.sleep(LOOK_SECONDS)


async def verified(file: Path, note: Path, keys: Path) -> str:
    """What the verifier says against an export; empty when it is what was logged."""
    arguments = ["audit", "verify", str(file), "--checkpoint", str(note), "--key", str(keys)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "cli.main",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return "" if process.returncode == 0 else output.decode(errors="replace").strip()


def events(file: Path) -> list[Event]:
    """The facts of an export, in its order."""
    with file.open() as lines:
        entries = (line["entry"] for line in map(json.loads, lines) if "entry" in line)
        return [Event.FromString(base64.b64decode(entry["payload"])) for entry in entries]


def differences(
    events_logged: Iterable[Event], fact_counts: Mapping[str, int], scenarios: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Facts that the log lacks, and scenarios that it tells otherwise than they were played."""
    logged: Counter[str] = Counter()
    stories: dict[str, list[Event]] = {}
    for event in events_logged:
        logged[fact_name(event)] += 1
        stories.setdefault(event.incident, []).append(event)
    lines = [
        f"{fact} was recorded {number} times, the audit log has {logged[fact]}"
        for fact, number in fact_counts.items()
        if logged[fact] < number
    ]
    for scenario in scenarios:
        # One that ended otherwise than it must says so itself; one of an error or a rollout has no incident.
        if not scenario.get("incident") or not scenario["ok"]:
            continue
        logged_outcome = outcome(stories.get(scenario["incident"], []))
        # More may have happened to the incident since the scenario ended.
        if not logged_outcome.startswith(scenario["outcome"]):
            lines.append(f"{scenario['name']}: the audit log tells {logged_outcome!r}, it was {scenario['outcome']!r}")
    return lines
