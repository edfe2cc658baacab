"""The sandbox: `python -m services.patcher.staging.sandbox FOLDER`, one request on standard input, one result on
standard output.

Rule: isolate first, then unpack, start the release, wait for its probe, run its smoke tests, and look again whether
it still lives. Only what was really run is counted. The nonce stays in this process; the release never sees it.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunella_agent.archive import ReleaseError, unpack
from services.patcher.staging import isolation

LONGEST_OUTPUT = 1024 * 1024
MOST_TESTS = 1000
START_SECONDS = 30.0
PROBE_SECONDS = 5.0
LOOK = 0.1


@dataclass
class Result:
    """What is reported at the end."""

    passed: bool = False
    tests_run: int = 0
    tests_passed: int = 0
    failures: list[str] = field(default_factory=list)


class Stop(Exception):  # noqa: N818 - it is no error of ours
    """The release cannot be proven further, with the reason."""


class Stage:
    """One release in its folder."""

    def __init__(self, folder: Path, request: dict[str, Any], deadline: float) -> None:
        self.folder = folder
        self.request = request
        self.deadline = deadline
        self.release = folder / "release"
        self.port = _free_port()

    def prove(self, result: Result) -> None:
        """Runs everything. Raises Stop with the reason when it ends early."""
        try:
            unpack(base64.b64decode(self.request["artifact"]), self.release)
        except ReleaseError as error:
            raise Stop(f"the artifact cannot be unpacked: {error.message}") from error
        (self.folder / "data").mkdir()
        # No credentials, and nothing outside can be reached: the release's own tests bring what they need.
        config = json.loads(self.request.get("config") or "{}") | {"sandbox": True}
        (self.folder / "config.json").write_text(json.dumps(config))
        (self.folder / "replay.json").write_text(json.dumps(self.request["failing_inputs"]))
        with (self.folder / "output").open("wb") as output:
            plugin = self._start_when_there_is_room(output)
            try:
                self._wait_for_probe(plugin)
                self._smoke(result)
                if plugin.poll() is not None:
                    raise Stop(
                        f"the release ended during its tests with status {plugin.returncode}{self._last_output()}"
                    )
                if not self._probe():
                    raise Stop("the probe fails after the tests")
            finally:
                with suppress(ProcessLookupError):
                    plugin.kill()
                plugin.wait(5)

    def _start_when_there_is_room(self, output: Any) -> "subprocess.Popen[bytes]":
        """Starts the release. That another sandbox of the same user has taken all its processes says nothing of it."""
        while True:
            try:
                return self._start(self.request["entrypoint"], output)
            except BlockingIOError as error:
                if time.monotonic() >= self.deadline:
                    raise Stop(
                        "no process could be started: another sandbox of this user has taken them all"
                    ) from error
                time.sleep(LOOK)

    def _start(self, command: Sequence[str], output: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            _arguments(command),
            cwd=self.release,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            "PORT": str(self.port),
            "PRUNELLA_SOCKET": str(self.folder / "telemetry"),
            "PRUNELLA_CONFIG": str(self.folder / "config.json"),
            "PRUNELLA_DATA": str(self.folder / "data"),
            "PRUNELLA_REPLAY": str(self.folder / "replay.json"),
        }

    def _left(self, most: float) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Stop("the time for staging is over")
        return min(left, most)

    def _wait_for_probe(self, plugin: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + self._left(START_SECONDS)
        while not self._probe():
            if plugin.poll() is not None:
                raise Stop(f"the release ended at its start with status {plugin.returncode}{self._last_output()}")
            if time.monotonic() > until:
                raise Stop(f"the probe is not content within {START_SECONDS:.0f} s{self._last_output()}")
            time.sleep(LOOK)

    def _probe(self) -> bool:
        command = self.request["probe"]
        if not command:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False
        try:
            done = subprocess.run(
                _arguments(command),
                cwd=self.release,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=self._left(PROBE_SECONDS),
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError):
            return False
        return done.returncode == 0

    def _smoke(self, result: Result) -> None:
        if not self.request["smoke"]:
            raise Stop("the release has no smoke tests")
        place = self.folder / "smoke"
        try:
            with place.open("wb") as output:
                done = subprocess.run(
                    _arguments(self.request["smoke"]),
                    cwd=self.release,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.DEVNULL,
                    timeout=self._left(3600),
                    check=False,
                )
        except subprocess.TimeoutExpired as error:
            raise Stop("the smoke tests did not end in time") from error
        with place.open("rb") as output:
            count(output.read(LONGEST_OUTPUT), result)
        if done.returncode != 0 and not result.failures:
            result.failures.append(f"the smoke tests ended with status {done.returncode}")
        result.passed = done.returncode == 0 and 0 < result.tests_run == result.tests_passed

    def _last_output(self) -> str:
        with suppress(OSError):
            tail = (self.folder / "output").read_bytes()[-400:].decode(errors="replace").strip().splitlines()
            return f": {tail[-1][:200]}" if tail else ""
        return ""


def count(output: bytes, result: Result) -> None:
    """Counts the tests in the lines of a smoke run; a line that is no test is passed over."""
    for line in output.splitlines()[: MOST_TESTS * 2]:
        try:
            report = json.loads(line)
            name, good = report["test"], report["ok"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if result.tests_run >= MOST_TESTS:
            break
        result.tests_run += 1
        if good is True:
            result.tests_passed += 1
        elif len(result.failures) < 10:
            result.failures.append(f"{name}: {report.get('detail', '')}"[:300])


def _arguments(command: Sequence[str]) -> list[str]:
    return [sys.executable if number == 0 and word == "python" else word for number, word in enumerate(command)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """One request, one result; or, asked with --probe, what this host can give."""
    if sys.argv[1:] == ["--probe"]:
        with tempfile.TemporaryDirectory(prefix="prunella-probe-") as name:
            return serve(Path(name), {"nonce": "", "seconds": PROBE_SECONDS, "only_confine": True})
    return serve(Path(sys.argv[1]), json.loads(sys.stdin.buffer.read()))


def serve(folder: Path, request: dict[str, Any]) -> int:
    """Confines a child and has it prove the release, watching it from outside."""
    parent, service_user = os.getppid(), os.geteuid()
    began = time.monotonic()
    # A service's files are closed to others; in here others must find their way.
    os.umask(0o022)
    isolation.limit(request["seconds"])
    spaces = isolation.separate()
    isolation.die_with_parent(parent)
    # A fresh process namespace begins with the next child, and ends with it.
    child = os.fork()
    if child == 0:
        os._exit(_work(folder, request, began, spaces, service_user))
    try:
        status = _watched(child)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _watched(child: int) -> int:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        # The kernel bounds the processes of everybody but root.
        if isolation.runs_as_root(child) and isolation.processes() > isolation.PROCESSES:
            os.kill(child, signal.SIGKILL)
        time.sleep(LOOK / 2)


def _work(folder: Path, request: dict[str, Any], began: float, spaces: isolation.Spaces, service_user: int) -> int:
    result = Result()
    found = isolation.confine(folder, spaces, service_user)
    isolation.limit_processes()
    isolation.no_new_privileges()
    least = request.get("min_isolation", "none")
    runs = isolation.LEVELS.index(found.level) >= isolation.LEVELS.index(least) and "only_confine" not in request
    try:
        if runs:
            Stage(folder, request, began + request["seconds"]).prove(result)
    except (Stop, OSError) as stop:
        result.passed = False
        result.failures.insert(0, str(stop)[:300])
    answer = {
        "nonce": request["nonce"],
        "ran": runs,
        "passed": result.passed,
        "tests_run": result.tests_run,
        "tests_passed": result.tests_passed,
        "failures": result.failures[:10],
        "seconds": round(time.monotonic() - began, 3),
        "network": found.network,
        "user": found.user,
        "files": found.files,
        "isolation": found.level,
        "missing": found.missing,
    }
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
