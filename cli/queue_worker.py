"""`prunella queue worker`: this process becomes a worker of the plane's queue."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cli.plane_client import find, guarded, plane_file


def worker(
    config: Annotated[
        Path, typer.Option("--config", "-c", exists=True, dir_okay=False, readable=True, help="Its servers and tools.")
    ],
) -> None:
    """Works tasks off with the MCP tools of a configuration, until Ctrl-C."""

    def work() -> int:
        command = [sys.executable, "-P", "-m", "services.queue.worker", "--config", str(config.resolve())]
        sys.stdout.flush()
        # The worker takes this process's place: signals and exit status are its own.
        os.execve(sys.executable, command, worker_environment(os.environ))

    guarded(work)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: the queue's address, the key, the import path. Raises PlaneNotFound."""
    from deploy.local.installation import IS_CHECKOUT

    plane = find(environ)
    variables = {"PRUNELLA_QUEUE_ADDRESS": plane.addresses.get("queue", ""), "PRUNELLA_KEY": plane.key}
    # What is installed is found by itself, and tool servers with another Python must not get this one's packages.
    variables |= {"PYTHONPATH": os.pathsep.join(sys.path)} if IS_CHECKOUT else {}
    if not environ.get("PRUNELLA_OTLP") and not environ.get("PRUNELLA_QUEUE_ADDRESS"):
        http = plane_file(environ).get("http", {})
        variables |= {"PRUNELLA_OTLP": f"http://{http['ops']}/v1/traces"} if http.get("ops") else {}
    return {**environ, **variables}
