"""A service without a database, for tests of the process around it: `python runtime_child.py`."""

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

from libs.common.clock import Clock
from libs.common.rpc import Server
from libs.common.runtime import Service, main
from libs.common.settings import ServiceSettings, variable
from libs.common.telemetry import configure


class ChildSettings(ServiceSettings):
    """How the child behaves."""

    hangs: bool = variable("CHILD_HANGS", default=False, rule="whether stopping hangs", remedy="true or false")


def say(word: str) -> None:
    """Tell the test, at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


class Slow:
    """A part that may never stop."""

    name = "slow"

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs

    async def start(self) -> None:
        say("started")

    async def stop(self) -> None:
        say("stopping")
        if self.hangs:
            await asyncio.Event().wait()
        say("stopped")


def build(settings: ChildSettings, clock: Clock) -> Service:
    async def check() -> None:
        say("checked")

    telemetry = configure("queue", settings)
    server = Server("queue", settings.listen, [], key=settings.key, deep_check=check, telemetry=telemetry)
    ctx: Any = SimpleNamespace(telemetry=telemetry, clock=clock)
    return Service("queue", ctx, [Slow(hangs=settings.hangs)], server)


if __name__ == "__main__":
    sys.exit(main(build, ChildSettings))
