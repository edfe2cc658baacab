"""`prunella up`: the plane on this machine, in the foreground."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.plane import guarded


def up(
    demo: Annotated[bool, typer.Option("--demo", help="Also start a fleet, break it, and tell how it heals.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget all data first.")] = False,
) -> None:
    """Starts PostgreSQL, NATS and the five services, or attaches to those that run. Ctrl-C stops them."""

    def work() -> int:
        from deploy.local import foreground

        if not demo:
            return asyncio.run(foreground.run(fresh=fresh))
        from deploy.demo import story

        return asyncio.run(foreground.run(story.tell, fresh=fresh, environment=story.environment()))

    guarded(work)
