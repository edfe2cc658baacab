"""A terminal on a plane: runs commands of `prunella` and keeps what they said and how they ended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cli.main import app

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class CommandResult:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Terminal:
    """Runs commands against one plane; `plugin` and `incident` are ids that exist on it."""

    environ: dict[str, str]
    plugin: str = ""
    incident: str = ""

    async def __call__(self, *words: str, **environ: str) -> CommandResult:
        """Runs a command in this process: the imports of a fresh one cost seconds when the machine is busy."""
        hidden = {name: None for name in os.environ if name.startswith(("PRUNELLA_", "DATABASE_URL", "NATS_URL"))}
        settings = {**hidden, **self.environ, **environ}
        result = await asyncio.to_thread(CliRunner().invoke, app, list(words), env=settings)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return CommandResult(result.exit_code, result.stdout, result.stderr)

    async def process(self, *words: str) -> asyncio.subprocess.Process:
        """Starts a command as a process of its own."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", *words),
            cwd=ROOT,
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


def cli_environment(tmp: Path) -> dict[str, str]:
    """An environment without a plane of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "LANG") if name in os.environ}
    roots = os.pathsep.join(str(ROOT / part) for part in (".", "protos/gen", "libs/agent"))
    return {**kept, "PYTHONPATH": roots, "PRUNELLA_STATE": str(tmp), "COLUMNS": "200"}
