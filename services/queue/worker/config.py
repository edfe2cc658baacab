"""The worker's configuration (TOML): which MCP servers there are, and which of their tools read or write.

Rule: a tool that is not marked here does not exist for the worker. Every mistake is named with table, field, rule and
remedy. `${NAME}` in `env`, `headers` and `url` is taken from the worker's own environment, so that no secret has to
stand in the file; the command `python` means the interpreter that runs the worker.
"""

from __future__ import annotations

import math
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from libs.common.toml_tables import Reader

READ, WRITE = "read", "write"
MOST_SERVERS = 32
MOST_TOOLS = 500
MOST_CONCURRENT = 64
NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
TOOL = re.compile(r"[A-Za-z0-9_.-]{0,63}[A-Za-z0-9]")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
WORKER_FIELDS = {
    "name", "concurrency", "lease_seconds", "wait_seconds", "grace_seconds", "budget", "check_attempts",
    "check_pause_seconds",
}  # fmt: skip
SERVER_FIELDS = {
    "name", "transport", "command", "args", "env", "cwd", "url", "headers", "start_seconds", "deadline_seconds",
    "tools",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool the worker may call: how many seconds a call may take, and whether it changes anything."""

    name: str
    write: bool
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One MCP server: a program we start (`command` …) or an address (`url`). Values may be secret."""

    name: str
    transport: str
    tools: Mapping[str, Tool]
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str = ""
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    start_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `budget` is calls per task; times are in seconds."""

    name: str
    servers: tuple[ServerConfig, ...]
    concurrency: int = 2
    lease_seconds: float = 30.0
    wait_seconds: float = 20.0
    grace_seconds: float = 20.0
    budget: int = 20
    check_attempts: int = 3
    check_pause_seconds: float = 1.0

    def tool(self, full: str) -> Tool | None:
        """The tool called `server.tool`; None when it is not configured."""
        server, _, name = full.partition(".")
        return next((known.tools.get(name) for known in self.servers if known.name == server), None)


def parse(text: str, file: str, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in `text`; `file` is what errors call it. Raises Invalid (BAD_WORKER_CONFIG)."""
    reader = Reader(file, reason="BAD_WORKER_CONFIG", variable="--config")
    data = reader.parse(text)
    reader.only_fields(data, {"worker", "server"}, "the file")
    reading = _Reading(reader, os.environ if environ is None else environ)
    servers = tuple(
        reading.server(table, f"[[server]] {number}")
        for number, table in enumerate(reader.tables(data, "server", MOST_SERVERS, "start a second worker"), 1)
    )
    if not servers and not reader.mistakes:
        reader.wrong("the file", "server", "is needed", "write at least one [[server]] with its tools")
    names = [server.name for server in servers]
    for name in {name for name in names if name and names.count(name) > 1}:
        reader.wrong("the file", "server", f"has two servers called {name!r}", "give each a name of its own")
    if sum(len(server.tools) for server in servers) > MOST_TOOLS:
        reader.wrong("the file", "server", f"may mark {MOST_TOOLS} tools in all", "start a second worker")
    config = reading.worker(data.get("worker", {}), servers)
    reader.raise_mistakes()
    return config


class _Reading:
    """Reads the tables; mistakes are collected by the reader."""

    def __init__(self, reader: Reader, environ: Mapping[str, str]) -> None:
        self.reader = reader
        self.environ = environ

    def worker(self, table: Any, servers: tuple[ServerConfig, ...]) -> Config:
        where = "[worker]"
        if not isinstance(table, dict):
            self.reader.wrong("the file", "worker", "must be a table", "write [worker] above its fields")
            table = {}
        self.reader.only_fields(table, WORKER_FIELDS, where)
        name = self.reader.text(table, "name", where, default=f"{socket.gethostname()[:60]}-{os.getpid()}", longest=80)
        if not name.isprintable():
            self.reader.wrong(where, "name", "must be printable", f"it was {name!r}")
        return Config(
            name=name,
            servers=servers,
            concurrency=self.whole(table, "concurrency", where, 1, MOST_CONCURRENT, 2),
            lease_seconds=self.between(table, "lease_seconds", where, 5, 600, 30),
            wait_seconds=self.between(table, "wait_seconds", where, 0, 30, 20),
            grace_seconds=self.between(table, "grace_seconds", where, 0, 600, 20),
            budget=self.whole(table, "budget", where, 1, 1000, 20),
            check_attempts=self.whole(table, "check_attempts", where, 1, 60, 3),
            check_pause_seconds=self.between(table, "check_pause_seconds", where, 0, 60, 1),
        )

    def server(self, table: dict[str, Any], where: str) -> ServerConfig:
        self.reader.only_fields(table, SERVER_FIELDS, where)
        name = self.reader.text(table, "name", where, longest=32)
        if name and not NAME.fullmatch(name):
            self.reader.wrong(where, "name", "must be lower case letters, digits, - and _", f"it was {name!r}")
        where = f"[[server]] {name}" if name else where
        transport = self.reader.choice(table, "transport", where, frozenset({"stdio", "http"}))
        return ServerConfig(
            name=name,
            transport=transport,
            tools=self.tools(table, where),
            command=self.command(table, where) if transport == "stdio" else (),
            env=self.texts(table, "env", where),
            cwd=self.reader.text(table, "cwd", where, default=""),
            url=self.url(table, where) if transport == "http" else "",
            headers=self.texts(table, "headers", where),
            start_seconds=self.between(table, "start_seconds", where, 0.1, 300, 20),
        )

    def command(self, table: dict[str, Any], where: str) -> tuple[str, ...]:
        first = self.reader.text(table, "command", where)
        arguments = table.get("args", [])
        if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
            self.reader.wrong(where, "args", "must be a list of texts", 'write args = ["-m", "my.tools"]')
            arguments = []
        return (sys.executable if first == "python" else first, *arguments)

    def url(self, table: dict[str, Any], where: str) -> str:
        text = self.filled(self.reader.text(table, "url", where), where, "url")
        if text and not text.startswith(("http://", "https://")):
            self.reader.wrong(where, "url", "must begin with http:// or https://", "write the server's whole address")
        return text

    def tools(self, table: dict[str, Any], where: str) -> dict[str, Tool]:
        deadline = self.between(table, "deadline_seconds", where, 0.1, 600, 20)
        found = table.get("tools")
        if not isinstance(found, dict) or not found or len(found) > MOST_TOOLS:
            rule = f"must mark 1 to {MOST_TOOLS} tools"
            self.reader.wrong(where, "tools", rule, 'write [server.tools] and below it name = "read" or "write"')
            return {}
        return {name: self.tool(name, entry, f"{where}, tools", deadline) for name, entry in found.items()}

    def tool(self, name: str, entry: Any, where: str, deadline: float) -> Tool:
        if not TOOL.fullmatch(name):
            self.reader.wrong(
                where, name[:80], "must be 1 to 64 letters, digits and _ . / -", "use the tool's own name"
            )
        fields = entry if isinstance(entry, dict) else {"access": entry}
        self.reader.only_fields(fields, {"access", "deadline_seconds"}, f"{where}.{name}")
        access = fields.get("access")
        if access not in {READ, WRITE}:
            self.reader.wrong(where, name, 'must be "read" or "write"', f"it was {access!r}")
        return Tool(
            name, access != READ, self.between(fields, "deadline_seconds", f"{where}.{name}", 0.1, 600, deadline)
        )

    def texts(self, table: dict[str, Any], name: str, where: str) -> dict[str, str]:
        found = table.get(name, {})
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            self.reader.wrong(where, name, "must be a table of texts", f'write {name} = {{ NAME = "value" }}')
            return {}
        return {key: self.filled(value, where, f"{name}.{key}") for key, value in found.items()}

    def filled(self, text: str, where: str, name: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] not in self.environ:
                self.reader.wrong(where, name, f"names the variable {match[1]}, which is not set", "export it")
            return self.environ.get(match[1], "")

        return VARIABLE.sub(value, text)

    def between(self, table: dict[str, Any], name: str, where: str, least: float, most: float, default: float) -> float:
        def fits(value: float) -> bool:
            return least <= value <= most

        return self.reader.number(table, name, where, fits, f"a number of seconds from {least:g} to {most:g}", default)

    def whole(self, table: dict[str, Any], name: str, where: str, least: int, most: int, default: int) -> int:
        fits: Callable[[float], bool] = lambda value: least <= value <= most and math.floor(value) == value  # noqa: E731
        return int(self.reader.number(table, name, where, fits, f"a whole number from {least} to {most}", default))
