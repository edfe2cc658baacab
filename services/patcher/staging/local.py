"""Runs the sandbox as a child of this process: own process group, scrubbed environment, own folder, a deadline.

Rule: the child's word counts only as one JSON object with this request's nonce, on time and within the size limit.
Whatever else it does, it is killed with its whole group and its folder is removed.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from libs.common.text import clean_values
from services.patcher.attempt import Staged
from services.patcher.policy import Isolation
from services.patcher.staging import Request, SandboxHost, StagingLostError, local_environment

ROOT = Path(__file__).resolve().parents[3]
LONGEST_ANSWER = 256 * 1024
MOST_FAILURES = 10
HERE = "the sandbox on this host"
AT_ONCE = 2
SANDBOX = "services.patcher.staging.sandbox"
PROBE_TIMEOUT = 20.0
REMEDY = (
    "run the patcher as root, or allow it user namespaces (outside a container: sysctl "
    "kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0; inside: a seccomp profile "
    "that permits unshare and mount), name a runner on a machine of its own with STAGING_RUNNER_URL,"
)


class LocalRunner:
    """Proves releases on this machine, a few at a time. `launcher` is put before the sandbox's own command line."""

    def __init__(self, at_once: int = AT_ONCE, launcher: Sequence[str] = ()) -> None:
        self.launcher = tuple(launcher)
        self._free = asyncio.Semaphore(at_once)
        self._host: SandboxHost | None = None
        self._probing = asyncio.Lock()

    @property
    def environment(self) -> str:
        """Interpreter and platform."""
        return local_environment()

    async def host(self) -> SandboxHost:
        """What this machine can give a release: the sandbox itself tries, once in the life of the process."""
        async with self._probing:
            if self._host is None:
                self._host = await self._probe()
            return self._host

    def turn(self) -> asyncio.Semaphore:
        """Waits for one of the few sandboxes."""
        return self._free

    async def run(self, request: Request) -> Staged:
        """The sandbox's result. Raises StagingLostError when it gave none that counts."""
        folder = Path(tempfile.mkdtemp(prefix="prunella-staging-"))
        try:
            return await self._in(folder, request)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _probe(self) -> SandboxHost:
        folder = Path(tempfile.mkdtemp(prefix="prunella-probe-"))
        child = await asyncio.create_subprocess_exec(
            *self.launcher, sys.executable, "-m", SANDBOX, "--probe",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=scrubbed(folder), cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                answer, _ = await child.communicate()
            return read_host(answer)
        except (TimeoutError, ValueError, KeyError, TypeError) as error:
            missing = f"a sandbox that works (its probe: {error or type(error).__name__})"
            return SandboxHost(Isolation.NONE, HERE, missing=(missing,), remedy=REMEDY)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _in(self, folder: Path, request: Request) -> Staged:
        child = await asyncio.create_subprocess_exec(
            *self.launcher,
            sys.executable,
            "-m",
            SANDBOX,
            str(folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=scrubbed(folder),
            cwd=folder,
            start_new_session=True,
        )
        try:
            # A little longer than the sandbox's own deadline, so that it can still say what it was waiting for.
            async with asyncio.timeout(request.seconds + 3.0):
                answer = await _talk(child, question(request))
        except TimeoutError:
            return Staged(False, 0, 0, request.seconds, failures=("the sandbox gave no result in time",))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        return read(answer, request.nonce)


async def _talk(child: asyncio.subprocess.Process, text: bytes) -> bytes:
    assert child.stdin
    assert child.stdout
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        child.stdin.write(text)
        await child.stdin.drain()
        child.stdin.close()
    answer = b""
    while len(answer) <= LONGEST_ANSWER:
        piece = await child.stdout.read(65536)
        if not piece:
            return answer
        answer += piece
    raise StagingLostError(f"the sandbox wrote more than {LONGEST_ANSWER} bytes")


def scrubbed(folder: Path) -> dict[str, str]:
    """An environment without anything of ours but the way to our own code."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos/gen"), str(ROOT / "libs/agent")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def question(request: Request) -> bytes:
    """What the sandbox reads on its standard input."""
    manifest = request.manifest
    return json.dumps(
        {
            "nonce": request.nonce,
            "artifact": base64.b64encode(request.artifact).decode(),
            "entrypoint": list(manifest.entrypoint),
            "probe": list(manifest.probe),
            "smoke": list(manifest.smoke),
            "failing_inputs": list(request.failing_inputs),
            "config": request.config.decode(),
            "seconds": request.seconds,
            "min_isolation": request.min_isolation.word,
        }
    ).encode()


def read_host(answer: bytes) -> SandboxHost:
    """What a probe found. Raises ValueError, KeyError or TypeError for what is no answer."""
    found = json.loads(answer)
    return SandboxHost(
        Isolation.of(found["isolation"]),
        HERE,
        user=str(found["user"]),
        network=str(found["network"]),
        files=str(found["files"]),
        missing=tuple(str(each) for each in found["missing"]),
        remedy=REMEDY,
    )


def read(answer: bytes, nonce: str, *, apart: bool = False) -> Staged:
    """The result in a runner's answer. Raises StagingLostError unless it is exactly one that answers this nonce.

    `apart`: the runner is another machine, which has full isolation unless it says otherwise.
    """
    try:
        report = clean_values(json.loads(answer))
        if apart:
            report.setdefault("isolation", Isolation.NAMESPACES.word)
        return _checked(report, nonce)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StagingLostError(f"the runner's answer is not a result: {error or type(error).__name__}"[:300]) from error


def _checked(report: dict[str, Any], nonce: str) -> Staged:
    if report["nonce"] != nonce:
        raise ValueError("it answers another request")
    if report.get("ran", True) is not True:
        raise ValueError(f"nothing ran, since it could have only isolation {report['isolation']}")
    run, good = report["tests_run"], report["tests_passed"]
    whole = all(type(count) is int and 0 <= count <= 100_000 for count in (run, good)) and good <= run
    if not whole or type(report["passed"]) is not bool:
        raise ValueError("its figures make no sense")
    failures = tuple(str(failure)[:300] for failure in report.get("failures", ())[:MOST_FAILURES])
    if run == 0:
        failures = (*failures, "no test was run")
    return Staged(
        passed=report["passed"] and run > 0 and good == run,
        tests_passed=good,
        tests_run=run,
        seconds=float(report.get("seconds", 0.0)),
        failures=failures,
        network=str(report.get("network", ""))[:40],
        user=str(report.get("user", ""))[:40],
        files=str(report.get("files", ""))[:40],
        isolation=Isolation.of(report.get("isolation", "none")).word,
    )
