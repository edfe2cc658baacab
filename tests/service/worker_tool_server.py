"""An MCP server that misbehaves on purpose, for tests of the worker: `python worker_tool_server.py [http PORT]`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

NOTES = Path(os.environ.get("NOTES", os.devnull))


class Level(BaseModel):
    """A figure that a check can look at."""

    level: float
    label: str


server: MCPServer[Any] = MCPServer("shaky", log_level="CRITICAL")


def note(word: str) -> None:
    with NOTES.open("a") as stream:
        stream.write(f"{word}\n")


@server.tool()
def level(plugin: str = "") -> Level:
    note(f"level {plugin}")
    path = NOTES.with_suffix(".level")
    return Level(level=float(path.read_text()) if path.exists() else 0.0, label=plugin)


@server.tool()
def mend(plugin: str) -> str:
    note(f"mend {plugin}")
    NOTES.with_suffix(".level").write_text("7")
    return "mended"


@server.tool()
def fails() -> str:
    raise ToolError("the part is missing")


@server.tool()
async def hangs() -> str:
    note("hangs")
    await asyncio.Event().wait()
    return "never"


@server.tool()
async def waits() -> str:
    """Answers once the test says so."""
    note("waits")
    while not NOTES.with_suffix(".go").exists():  # noqa: ASYNC110 - a file cannot wake us
        await asyncio.sleep(0.02)
    return "went on"


@server.tool(structured_output=False)
def huge(megabytes: int = 50) -> str:
    return "x" * (megabytes * 1024 * 1024)


@server.tool()
def crashes() -> str:
    os._exit(3)


@server.tool()
def unmarked() -> str:
    note("unmarked")
    return "nobody may call this"


if __name__ == "__main__":
    note(f"pid {os.getpid()}")
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", port=int(sys.argv[2]), json_response=sys.argv[3:] == ["json"])
    else:
        server.run("stdio")
