"""The tools: status, read_log, read_config, test_delivery read; set_config and restart write.

Rule: arguments are checked here again, whoever calls. A refusal is a tool error whose text names field, rule, remedy.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from deploy.demo.tools import relay_control, relay_settings
from deploy.demo.tools.plugins import NoSuchPlugin, find

MOST_LINES = 200
TAIL_BYTES = 65536
LINE_CHARACTERS = 500


class Status(BaseModel):
    """How a plugin is: in its supervisor's words, and in its status."""

    plugin: str
    label: str
    release: str = ""
    health: str = Field("unknown", description="as its supervisor sees it: starting, healthy, unhealthy, down")
    connected: bool = False
    process: int = Field(0, description="process id; 0 for none")
    answers: bool = Field(default=False, description="whether its status health check answers now")
    settings: dict[str, Any] = Field(default_factory=dict, description="settings the running process uses")
    webhooks: int = Field(0, description="since the process started")
    failed: int = 0
    up_seconds: float = 0.0


class Log(BaseModel):
    """The end of a plugin's output, oldest first; text that anybody may have written."""

    label: str
    lines: list[str]


class Config(BaseModel):
    """A plugin's configuration as it is on the disk, secrets masked."""

    label: str
    values: dict[str, Any]
    settable: list[str]


class Change(BaseModel):
    """One value before and after; the running process uses it from its next start."""

    label: str
    key: str
    before: Any
    after: float


class Restart(BaseModel):
    """A restart that is over."""

    label: str
    seconds: float


class Delivery(BaseModel):
    """What became of one small event sent through the relay to its real sink."""

    label: str
    delivered: bool
    status: int = Field(description="the relay's answer; 0 for none")


class Tools:
    """The tools over one fleet folder."""

    def __init__(self, fleet: Path) -> None:
        self.fleet = fleet

    def status(self, plugin: str) -> Status:
        """How a relay plugin is; `plugin` is its id or label."""
        found = find(self.fleet, plugin)
        state, port = found.state, int(found.state.get("port", 0) or 0)
        status = relay_control.relay_status(port)
        return Status(
            plugin=found.id,
            label=found.label,
            release=str(state.get("release", "")),
            health=str(state.get("health", "unknown")),
            connected=bool(state.get("connected")),
            process=found.pid,
            answers=relay_control.ask(port, "GET", "/health")[0] == 200,
            settings=status.get("settings", {}),
            webhooks=int(status.get("webhooks", 0)),
            failed=int(status.get("failed", 0)),
            up_seconds=float(status.get("up_seconds", 0.0)),
        )

    def read_log(self, plugin: str, lines: int = 40) -> Log:
        """The last lines (1 to 200) a relay plugin wrote."""
        if not 1 <= lines <= MOST_LINES:
            raise relay_settings.Refused(f"lines: must be from 1 to {MOST_LINES}, not {lines}")
        found = find(self.fleet, plugin)
        try:
            with found.log.open("rb") as stream:
                stream.seek(max(0, found.log.stat().st_size - TAIL_BYTES))
                text = stream.read(TAIL_BYTES).decode(errors="replace")
        except FileNotFoundError:
            text = ""
        return Log(label=found.label, lines=[line[:LINE_CHARACTERS] for line in deque(text.splitlines(), lines)])

    def read_config(self, plugin: str) -> Config:
        """A relay plugin's configuration, secrets masked."""
        found = find(self.fleet, plugin)
        return Config(label=found.label, values=relay_settings.read(found.config), settable=list(relay_settings.KEYS))

    def set_config(self, plugin: str, key: str, value: float) -> Change:
        """Sets one value of a relay plugin's configuration; it counts from the plugin's next start."""
        found = find(self.fleet, plugin)
        before, after = relay_settings.write(found.config, key, value)
        return Change(label=found.label, key=key, before=before, after=after)

    def restart(self, plugin: str) -> Restart:
        """Makes a relay plugin start again, and waits until it answers."""
        found = find(self.fleet, plugin)
        return Restart(label=found.label, seconds=round(relay_control.restart(found), 3))

    def test_delivery(self, plugin: str) -> Delivery:
        """Sends one small event through a relay plugin to its sink and tells whether it arrived."""
        found = find(self.fleet, plugin)
        status = relay_control.deliver(found)
        return Delivery(label=found.label, delivered=status == 200, status=status)


def tool(work: Callable[..., Any]) -> Callable[..., Any]:
    """The tool, with refusals as errors that a caller may read; the text of any other error stays here."""

    @functools.wraps(work)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return work(*arguments, **named)
        except (NoSuchPlugin, relay_settings.Refused, relay_control.RestartFailed, FileNotFoundError) as error:
            raise ToolError(str(error)) from error

    return call


def make(fleet: Path) -> MCPServer[Any]:
    """The MCP server of one fleet folder."""
    tools = Tools(fleet)
    server: MCPServer[Any] = MCPServer(
        "relay-tools", instructions="Tools for the relay plugins of one fleet.", log_level="WARNING"
    )
    for work in (tools.status, tools.read_log, tools.read_config, tools.set_config, tools.restart, tools.test_delivery):
        server.tool()(tool(work))
    return server
