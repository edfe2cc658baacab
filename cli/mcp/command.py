"""The command line of `prunella mcp`: over standard input and output, or over HTTP on this machine.

Rule: standard output belongs to the protocol. Over HTTP a client proves itself with a token made from the plane's key,
because other people of this machine can reach the port.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.plane_client import SERVICES, fail, find, guarded

# What a client must hand on so that the server finds the same plane; the key itself is never printed.
PASSED_VARIABLES = ("PRUNELLA_STATE", "PRUNELLA_KEY_FILE", *(f"PRUNELLA_{name.upper()}_ADDRESS" for name in SERVICES))


def mcp(
    http: Annotated[
        int | None, typer.Option("--http", min=0, max=65535, help="Serve HTTP on this port of 127.0.0.1 (0: any).")
    ] = None,
    allow_proposals: Annotated[
        bool, typer.Option("--allow-proposals", help="Also let it ask people for something.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the JSON to paste into an MCP client, and end.")
    ] = False,
) -> None:
    """Serves the plane to AI agents (MCP): they read; people decide."""

    def work() -> int:
        if print_config:
            from cli.output import show_json

            show_json(config(os.environ, http, allow_proposals=allow_proposals))
            if http is None and os.environ.get("PRUNELLA_KEY") and not os.environ.get("PRUNELLA_KEY_FILE"):
                typer.echo("prunella: the key is not printed; put it into a file and name that by PRUNELLA_KEY_FILE",
                           err=True)  # fmt: skip
            return 0
        try:
            from cli.mcp import server
        except ModuleNotFoundError as missing:
            fail(f"{missing.name} is not installed; type: pip install 'prunella[mcp]'")
        if http is None:
            return asyncio.run(server.serve_stdio(allow_proposals=allow_proposals))
        return asyncio.run(server.serve_http(http, allow_proposals=allow_proposals))

    guarded(work)


def config(environ: Mapping[str, str], http: int | None, *, allow_proposals: bool) -> dict[str, Any]:
    """The entry of an MCP client: a command to start, or an address with its token (then raises PlaneNotFound)."""
    if http is not None:
        from cli.mcp.access import token

        headers = {"Authorization": f"Bearer {token(find(environ).key)}"}
        entry: dict[str, Any] = {"type": "http", "url": f"http://127.0.0.1:{http}/mcp", "headers": headers}
    else:
        program = Path(sys.executable).with_name("prunella")
        arguments = [str(program)] if program.exists() else [sys.executable, "-m", "cli.main"]
        arguments += ["mcp", *(["--allow-proposals"] if allow_proposals else [])]
        entry = {"command": arguments[0], "args": arguments[1:]}
        environment = {name: environ[name] for name in PASSED_VARIABLES if environ.get(name)}
        if not program.exists():
            environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        if environment:
            entry["env"] = environment
    return {"mcpServers": {"prunella": entry}}
