"""The demo's socket: breaks what it is asked to break, says why when it does not, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.control_socket import ControlServer, DemoNotRunning, ask_to_break, socket_path
from deploy.local.state import State
from deploy.local.testing import until


class Installs:
    """A fleet that only remembers what it was asked to install."""

    def __init__(self) -> None:
        self.shops = {"shop-7": object()}
        self.installed: list[tuple[str, str]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def install(self, label: str, release: str) -> None:
        self.installed.append((label, release))
        await self.go_on.wait()


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[tuple[Installs, State]]:
    fleet: Any = Installs()
    state = State(tmp_path)
    server = ControlServer(fleet, state)
    await server.start()
    yield fleet, state
    await server.stop()
    assert not socket_path(state).exists()


async def test_breaking_a_plugin_installs_the_broken_release(demo: tuple[Installs, State]) -> None:
    fleet, state = demo
    assert await ask_to_break(state, "shop-7") == "shop-7 runs release 1.2.0 now"
    assert fleet.installed == [("shop-7", "1.2.0")]


@pytest.mark.parametrize(("label", "release", "says"), [("shop-9", "1.2.0", "shop-7"), ("shop-7", "9.9", "1.2.3")])
async def test_what_does_not_exist_is_told_with_what_does(
    demo: tuple[Installs, State], label: str, release: str, says: str
) -> None:
    fleet, state = demo
    with pytest.raises(ValueError, match=says):
        await ask_to_break(state, label, release)
    assert not fleet.installed


async def test_a_plugin_is_broken_once_at_a_time(demo: tuple[Installs, State]) -> None:
    fleet, state = demo
    fleet.go_on.clear()
    first = asyncio.create_task(ask_to_break(state, "shop-7"))
    await until(lambda: fleet.installed, 5)
    with pytest.raises(ValueError, match="already"):
        await ask_to_break(state, "shop-7")
    fleet.go_on.set()
    await first


async def test_only_the_owner_reaches_the_socket_and_without_a_demo_the_line_to_type_is_told(
    demo: tuple[Installs, State], tmp_path: Path
) -> None:
    _, state = demo
    assert socket_path(state).stat().st_mode & 0o777 == 0o600
    with pytest.raises(DemoNotRunning, match="make run"):
        await ask_to_break(State(tmp_path / "elsewhere"), "shop-7")
    assert len(str(socket_path(State(tmp_path / ("x" * 120))))) < 100
