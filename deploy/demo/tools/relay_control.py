"""Asks a relay how it is, and makes it start again.

Rule: a restart is over when a new start of the relay answers, not when a signal was sent. The relay's supervisor lives
on and sees its plugin; a relay that does not come back is the supervisor's to report, and nothing here hides it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from typing import Any

from deploy.demo.tools.plugins import Plugin

ANSWER_SECONDS = 3.0
RESTART_SECONDS = 12.0
LOOK_SECONDS = 0.05
EVENT = b'{"id":"evt_tools","type":"tools.test","amount":1}'


class RestartFailed(RuntimeError):  # noqa: N818 - says what it means
    """The relay did not start again."""


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of one request to a relay on this machine; status 0 when there is no answer."""
    if not port:
        return 0, b""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read(65536)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def relay_status(port: int) -> dict[str, Any]:
    """What the relay says of itself (GET /status); empty when it says nothing."""
    status, body = ask(port, "GET", "/status")
    try:
        fields = json.loads(body) if status == 200 else {}
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def deliver(plugin: Plugin) -> int:
    """The relay's answer to one small event; 0 when there is none."""
    return ask(int(plugin.state.get("port", 0) or 0), "POST", "/webhook", EVENT)[0]


def restart(plugin: Plugin) -> float:
    """Makes the relay start again (SIGHUP); seconds until the new start answered. Raises RestartFailed."""
    pid, port = plugin.pid, int(plugin.state.get("port", 0) or 0)
    if not pid:
        raise RestartFailed(f"{plugin.label} has no process; its supervisor has told the plane, which decides")
    before = relay_status(port).get("started")
    began = time.monotonic()
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        raise RestartFailed(f"{plugin.label} ended just now") from None
    while time.monotonic() < began + RESTART_SECONDS:
        started = relay_status(port).get("started")
        if started is not None and started != before:
            return time.monotonic() - began
        time.sleep(LOOK_SECONDS)
    raise RestartFailed(f"{plugin.label} did not start again within {RESTART_SECONDS:g} s")
