"""SDK and totals: the host never notices, figures never shrink, nothing is trusted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunella_agent import launch
from prunella_agent.sdk import Sdk, quietly
from prunella_agent.telemetry import Totals

AGENT = str(Path(launch.__file__).resolve().parents[1])


def datagram(process: str, errors: int = 0, **fields: object) -> bytes:
    body = {"process": process, "errors": errors, "attempts": 0, "failures": 0, "signature_failures": 0}
    return json.dumps(body | fields).encode()


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": AGENT} | environment
    return subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.settimeout(10)
        yield listening


def last(heard: socket.socket) -> dict[str, object]:
    """The last of the datagrams that wait."""
    found = heard.recv(65536)
    heard.setblocking(False)
    while True:
        try:
            found = heard.recv(65536)
        except BlockingIOError:
            return dict(json.loads(found))


def test_a_plugin_reports_with_three_lines_and_also_at_its_end(heard: socket.socket, tmp_path: Path) -> None:
    program = (
        "import prunella_agent as prunella\nprunella.start(release='1.2.0')\n"
        "prunella.webhook(ok=False, sample={'a': 1}); prunella.webhook(ok=True); prunella.error()\n"
        "prunella.number('queue', 3); prunella.number('bad', float('nan')); prunella.signature_failure()\n"
        "prunella.webhook(ok=False, sample='x' * 3000); prunella.number(object(), 'no'); prunella.webhook(3)\n"
    )
    ended = run(program, PRUNELLA_SOCKET=str(tmp_path / "s"))
    assert (ended.returncode, ended.stderr) == (0, "")
    body = last(heard)
    assert (body["release"], body["attempts"], body["failures"], body["errors"]) == ("1.2.0", 4, 2, 1)
    assert body["numbers"] == {"queue": 3.0}
    assert body["samples"] == ['{"a": 1}']
    assert body["signature_failures"] == 1


@pytest.mark.parametrize("path", ["", "/nowhere/at/all", "/tmp"])
def test_without_a_supervisor_the_plugin_runs_as_if_nothing_were(path: str) -> None:
    program = "import prunella_agent as p; p.start(); p.error(); p.webhook(False); p.flush(); print('ran')"
    ended = run(program, PRUNELLA_SOCKET=path)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("ran\n", "", 0)


def test_importing_it_costs_the_standard_library_only() -> None:
    ended = run(
        "import sys, prunella_agent; print([m for m in ('grpc', 'cryptography', 'google') if m in sys.modules])"
    )
    assert ended.stdout == "[]\n"


def test_a_forked_child_counts_for_itself(heard: socket.socket, tmp_path: Path) -> None:
    program = (
        "import os, prunella_agent as p\np.start('1'); p.error(); p.error()\n"
        "if os.fork() == 0:\n    p.error(); p.flush(); os._exit(0)\n"
        "os.wait()\n"
    )
    assert run(program, PRUNELLA_SOCKET=str(tmp_path / "s")).returncode == 0
    totals = Totals()
    heard.setblocking(False)
    while True:
        try:
            assert totals.add(heard.recv(65536))
        except BlockingIOError:
            break
    assert totals.total("errors") == 3
    assert len(totals.processes) == 2


def test_a_full_socket_costs_the_host_nothing(heard: socket.socket, tmp_path: Path) -> None:
    sdk = Sdk()
    sdk._path = str(tmp_path / "s")
    began = time.monotonic()
    for _ in range(2000):
        sdk.count(errors=1)
        quietly(sdk.send)
    assert time.monotonic() - began < 5


def test_a_restarted_plugin_adds_to_what_it_counted_before() -> None:
    totals = Totals()
    totals.add(datagram("first", 5))
    totals.add(datagram("second", 2))
    totals.add(datagram("first", 3))
    assert totals.total("errors") == 7


def test_many_short_processes_are_folded_and_nothing_is_lost() -> None:
    totals = Totals()
    for n in range(500):
        totals.add(datagram(str(n), 1))
    assert totals.total("errors") == 500
    assert len(totals.processes) == 64


@pytest.mark.parametrize(
    "garbage",
    [
        *[b"", b"\xff", b"[]", b"3", b"{}", b"[" * 5000, b'{"process":"p","errors":1.5}'],
        *[datagram("p", wrong) for wrong in (-1, True, 2**60)],
    ],
)
def test_garbage_changes_nothing(garbage: bytes) -> None:
    totals = Totals()
    assert not totals.add(garbage)
    assert totals.total("errors") == 0


def test_numbers_and_samples_are_bounded_and_finite() -> None:
    totals = Totals()
    for start in (0, 100):
        numbers = {f"n{n}": n for n in range(start, start + 60)} | {"x" * 65: 1}
        totals.add(datagram("p", numbers=numbers, samples=["a", 3, "b" * 3000, "c", "d", "e"]))
    assert len(totals.numbers) == 32
    assert totals.samples == ("c", "d", "e")
    assert Totals().add(
        b'{"process":"p","errors":0,"attempts":0,"failures":0,"signature_failures":0,"numbers":{"a":NaN}}'
    )


def test_a_plugin_gets_nothing_of_the_planes() -> None:
    base = {"PRUNELLA_KEY": "k", "DATABASE_URL": "d", "NATS_URL": "n", "PRUNELLA_TOKEN": "t", "HOME": "/h"}
    found = launch.environment(port=1, socket="s", config="c", data="d", base=base)
    assert found["HOME"] == "/h" and found["PORT"] == "1"
    assert not {"k", "d", "n", "t"} & {found.get(name) for name in base}


def test_a_plugin_gets_the_sdk_alone_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of the supervisor's environment would come before those of a plugin with an interpreter of its own."""

    def path() -> list[str]:
        found = launch.environment(port=1, socket="s", config="c", data="d", base={"PYTHONPATH": "/own"})
        return found["PYTHONPATH"].split(os.pathsep)

    assert path() == [AGENT, "/own"]
    monkeypatch.setattr(launch, "__file__", "/agent/lib/python3.13/site-packages/prunella_agent/launch.py")
    assert path() == ["/own"]
