"""`prunella up`: the plane on this machine, in the foreground."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.plane_client import guarded


def up(
    demo: Annotated[bool, typer.Option("--demo", help="Also start a fleet, break it, and tell how it heals.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget all data first.")] = False,
) -> None:
    """Starts PostgreSQL, NATS and the five services, or attaches to those that run. Ctrl-C stops them."""

    def work() -> int:
        if demo:
            from deploy.demo import start

            return asyncio.run(start.up(fresh=fresh))
        from deploy.local import foreground

        return asyncio.run(foreground.run(fresh=fresh))

    guarded(work)
