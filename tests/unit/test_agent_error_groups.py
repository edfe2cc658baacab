"""ErrorGroups in a plugin's process: grouped, bounded, and never a reason for the plugin to fail."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunella_agent import launch
from prunella_agent.error_groups import MAX_DATAGRAM, MAX_GROUPS, ErrorGroups
from prunella_agent.sdk import Sdk, quietly

AGENT = str(Path(launch.__file__).resolve().parents[1])


def add(
    errors: ErrorGroups, message: str = "", error: object = None, kind: str = "", stack: str = "", **context: Any
) -> None:
    errors.add(*errors.describe(error, kind, message, stack, context))


def drained(errors: ErrorGroups) -> list[dict[str, Any]]:
    """Every group, as it would be sent."""
    found = []
    while (waiting := errors.datagram("p")) is not None:
        key, count, datagram = waiting
        assert len(datagram) <= MAX_DATAGRAM
        found.append(json.loads(datagram)["error"])
        errors.sent(key, count)
    return found


def raised(message: str) -> BaseException:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.settimeout(60)
        yield listening


def test_a_flood_is_one_group_with_a_count() -> None:
    errors = ErrorGroups()
    for number in range(10_000):
        add(errors, f"order {number} has no price", kind="ValueError")
    (told,) = drained(errors)
    assert told["count"] == 10_000 and told["message"] == "order 9999 has no price"


def test_an_exception_tells_its_type_its_message_its_module_and_its_stack() -> None:
    errors = ErrorGroups()
    add(errors, error=raised("no total"), order="17")
    (told,) = drained(errors)
    assert (told["type"], told["message"], told["context"]) == ("ValueError", "no total", {"order": "17"})
    assert "in raised" in told["stack"] and told["stack"].endswith("ValueError: no total\n")
    assert told["module"].endswith("test_agent_error_groups")


def test_the_same_line_with_another_message_is_another_group() -> None:
    errors = ErrorGroups()
    add(errors, error=raised("no price"))
    add(errors, error=raised("no cart at all"))
    assert len(drained(errors)) == 2


def test_no_more_than_a_hundred_groups_wait() -> None:
    errors = ErrorGroups()
    for number in range(3 * MAX_GROUPS):
        add(errors, "".join(chr(97 + int(digit)) for digit in str(number)))
    assert len(errors) == MAX_GROUPS


@pytest.mark.parametrize(
    ("message", "stack", "context"),
    [
        ("m" * 100_000, "s" * 5_000_000, {"k": "v" * 100_000}),
        ("\0" * 3000, "\0" * 9000, {str(number): "\0" * 500 for number in range(50)}),
        ("\U0001f525" * 3000, "\ud800\udfff" * 9000, {"\ud800": "\ud800"}),
        ("", "", {"severity": "\1" * 999, "module": "\1" * 999, "session": "\1" * 999, "user_action": "\1" * 999}),
    ],
    ids=["long", "control characters", "no text", "texts"],
)
def test_whatever_is_reported_fits_into_a_datagram(message: str, stack: str, context: dict[str, Any]) -> None:
    errors = ErrorGroups()
    add(errors, message, kind="T" * 5000, stack=stack, **context)
    assert [told["count"] for told in drained(errors)] == [1]


def test_a_long_stack_keeps_both_ends() -> None:
    errors = ErrorGroups()
    add(errors, "m", stack="first\n" + "x" * 50_000 + "\nlast")
    (told,) = drained(errors)
    assert told["stack"].startswith("first") and told["stack"].endswith("last") and "left out" in told["stack"]


def test_what_counts_while_it_is_sent_is_not_lost() -> None:
    errors = ErrorGroups()
    add(errors, "m")
    key, count, _ = errors.datagram("p") or ("", 0, b"")
    add(errors, "m")
    errors.sent(key, count)
    assert [told["count"] for told in drained(errors)] == [1]


class UnprintableError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((UnprintableError(),), {}),
        ((object(),), {"type": 3}),
        (("m",), {"stack": 7, "x": object()}),
        ((), {"message": b"x"}),
    ],
    ids=["unprintable", "object", "wrong types", "bytes"],
)
def test_the_host_never_notices(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    sdk = Sdk()
    message, type_, stack = (options.pop(word, "") for word in ("message", "type", "stack"))
    quietly(sdk.error, arguments[0] if arguments else None, type_, message, stack, options)
    assert sdk._counters.errors == 1 and len(sdk._errors) == 1


def test_errors_are_told_at_the_end_of_a_process_even_when_the_socket_is_full(
    heard: socket.socket, tmp_path: Path
) -> None:
    texts = ("bad cart", "no price", "lost order", "wrong sum", "empty box", "late van", "red light", "flat tyre")
    program = (
        "import prunella_agent as prunella, os\nprunella.start(release='1.2.0')\n"
        f"for word in {texts!r}:\n"
        "    for other in ('a', 'b', 'c', 'd'): prunella.error(f'{word} {other}', severity='high')\n"
    )
    environment = os.environ | {"PYTHONPATH": AGENT, "PRUNELLA_SOCKET": str(tmp_path / "s")}
    child = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        found: list[dict[str, Any]] = []
        while len([body for body in found if "error" in body]) < 32:
            found.append(json.loads(heard.recv(65536)))
        assert max(body.get("errors", 0) for body in found) == 32
        assert {body["error"]["severity"] for body in found if "error" in body} == {"high"}
    finally:
        assert child.wait(20) == 0


def test_without_a_supervisor_errors_cost_memory_for_a_hundred_groups_and_nothing_else() -> None:
    sdk = Sdk()
    for number in range(200):
        quietly(sdk.error, None, "T", "".join(chr(97 + int(digit)) for digit in str(number)), "", {})
    quietly(sdk.flush)
    assert len(sdk._errors) == MAX_GROUPS and sdk._counters.errors == 200
