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
from pathlib import Path
from typing import Any

from libs.common.text import clean_values
from services.patcher.attempt import Staged
from services.patcher.staging import Request, StagingLostError, local_environment

ROOT = Path(__file__).resolve().parents[3]
LONGEST_ANSWER = 256 * 1024
MOST_FAILURES = 10
AT_ONCE = 2


class LocalRunner:
    """Proves releases on this machine, two at a time."""

    def __init__(self, folder: Path | None = None, at_once: int = AT_ONCE) -> None:
        self.folder = folder
        self._free = asyncio.Semaphore(at_once)

    @property
    def environment(self) -> str:
        """Interpreter and platform."""
        return local_environment()

    async def run(self, request: Request) -> Staged:
        """The sandbox's result. Raises StagingLostError when it gave none that counts."""
        async with self._free:
            folder = Path(tempfile.mkdtemp(prefix="prunella-staging-"))
            try:
                return await self._in(folder, request)
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _in(self, folder: Path, request: Request) -> Staged:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.patcher.staging.sandbox",
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
        }
    ).encode()


def read(answer: bytes, nonce: str) -> Staged:
    """The result in a runner's answer. Raises StagingLostError unless it is exactly one that answers this nonce."""
    try:
        report = clean_values(json.loads(answer))
        return _checked(report, nonce)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StagingLostError(f"the runner's answer is not a result: {error or type(error).__name__}"[:300]) from error


def _checked(report: dict[str, Any], nonce: str) -> Staged:
    if report["nonce"] != nonce:
        raise ValueError("it answers another request")
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
    )
