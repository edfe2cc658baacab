"""The two ways to start the demo: shown on this checkout's plane, or played on a fresh plane of its own.

Rule: scenarios never touch the plane that people work with; their plane has a state folder of its own, is fresh each
time, and stays on disk afterwards for whoever wants to read its logs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from deploy.demo.environment import ENVIRONMENT
from deploy.local import foreground
from deploy.local.plane import Plane
from deploy.local.state import State, locate, private_folder

Say = Callable[[str], None]


def scenario_state() -> State:
    """The state folder of the plane that scenarios play on, beside this checkout's own."""
    own = locate()
    return State(private_folder(own.folder.with_name(own.folder.name + "-demo")))


async def up(say: Say = foreground.say, *, fresh: bool = False) -> int:
    """Starts the plane with the demo and stays until somebody says stop; returns the exit status."""
    from deploy.demo import showcase

    return await foreground.run(partial(showcase.run, say=say), fresh=fresh, say=say, environment=ENVIRONMENT)


async def play(names: Sequence[str] = (), say: Say = foreground.say) -> tuple[int, dict[str, Any]]:
    """Plays scenarios (all when none is named) on a fresh plane; returns exit status and document.

    Raises KeyError for a scenario that does not exist.
    """
    from deploy.demo.scenarios import runner

    runner.select(names)
    document: dict[str, Any] = {}

    async def body(plane: Plane) -> int:
        document.update(await runner.run(plane, say, names))
        return 0 if runner.passed(document) else 1

    status = await foreground.run(body, state=scenario_state(), fresh=True, say=say, environment=ENVIRONMENT)
    return (status if document else status or 1), document
