"""A release proves itself in the sandbox, and whatever it does there, the answer is one honest result in time."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import until
from prunella_agent.releases import describe
from services.patcher.attempt import Staged
from services.patcher.staging import Request, StagingLostError, suite
from services.patcher.staging.http import HttpRunner
from services.patcher.staging.local import LocalRunner, read
from tests.service.patcher_alone import MAIN, SMOKE, archive


def request(artifact: bytes, *, seconds: float = 20.0, inputs: tuple[str, ...] = (), **manifest: Any) -> Request:
    return Request(
        "nonce-1", describe(artifact, package="checkout", version="1.2.3", **manifest), artifact, inputs, seconds
    )


async def staged(folder: Path, *, seconds: float = 20.0, inputs: tuple[str, ...] = (), **files: str) -> Staged:
    return await LocalRunner().run(request(archive(folder / "r", **files), seconds=seconds, inputs=inputs))


def left_behind(mark: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes()
        except OSError:
            continue
        if mark.encode() in words:
            found.append(place.parent.name)
    return found


async def test_a_good_release_passes_with_the_inputs_that_failed_replayed(tmp_path: Path) -> None:
    result = await staged(tmp_path, inputs=("one", "two"))
    assert (result.passed, result.tests_run, result.tests_passed, result.failures) == (True, 3, 3, ())
    assert result.network in {"loopback", "shared"}
    assert result.user != ""


async def test_nothing_of_ours_is_in_its_environment_and_no_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("PRUNELLA_KEY", "secret")
    smoke = (
        "import json, os\n"
        "print(json.dumps({'test': 'env', 'ok': 'secret' not in str(os.environ), 'detail': ''}))\n"
        "print(json.dumps({'test': 'told', 'ok': False, 'detail': os.environ['PRUNELLA_DATA']}))\n"
    )
    result = await staged(tmp_path, smoke=smoke)
    assert result.tests_passed == 1
    data = Path(result.failures[0].split(": ")[1])
    assert data.name == "data"
    assert not data.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be sure of a network namespace")
async def test_it_sees_loopback_alone(tmp_path: Path) -> None:
    smoke = (
        "import json, socket\n"
        "names = sorted(name for _, name in socket.if_nameindex())\n"
        "print(json.dumps({'test': 'net', 'ok': names == ['lo'], 'detail': str(names)}))\n"
    )
    result = await staged(tmp_path, smoke=smoke)
    if result.network == "shared":
        pytest.skip("this machine gives no network namespace; the result says so")
    assert result.passed, result.failures


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"smoke": "print('{\"test\": \"t\", \"ok\": false, \"detail\": \"wrong\"}')"}, "t: wrong"),
        ({"smoke": ""}, "no test was run"),
        ({"smoke": "print('fine')"}, "no test was run"),
        ({"smoke": "print('{\"test\": \"t\", \"ok\": true}'); raise SystemExit(3)"}, "status 3"),
        ({"smoke": "print('{\"test\": \"t\", \"ok\": 1}')"}, "t: "),
        ({"main": "raise SystemExit('no sink')"}, "no sink"),
        ({"main": MAIN + "\n", "probe": "raise SystemExit(1)"}, "probe"),
        ({"main": "import os, threading\nthreading.Timer(1.5, os._exit, [7]).start()\n" + MAIN,
          "smoke": SMOKE + "\nimport time; time.sleep(2.5)"}, "status 7"),
    ],
    ids=["fails", "no tests", "no results", "bad status", "not true", "dies at start", "probe", "dies later"],
)  # fmt: skip
async def test_what_is_not_proven_fails_with_a_reason(tmp_path: Path, files: dict[str, str], why: str) -> None:
    seconds = 4.0 if why == "probe" else 20.0
    result = await staged(tmp_path, seconds=seconds, **files)
    assert not result.passed
    assert why in " ".join(result.failures) or "time for staging" in " ".join(result.failures)


async def test_a_hanging_release_is_killed_at_the_deadline_with_everything_it_started(tmp_path: Path) -> None:
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    smoke = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{mark}'], start_new_session=True)\n"
        "time.sleep(600)\n"
    )
    began = time.monotonic()
    result = await staged(tmp_path, seconds=4.0, smoke=smoke)
    assert not result.passed
    assert time.monotonic() - began < 60
    if result.network == "loopback" or os.geteuid() == 0:
        await until(lambda: not left_behind(mark), what="nothing stays behind")


async def test_a_fork_bomb_and_endless_output_stay_within_their_bounds(tmp_path: Path) -> None:
    bomb = "import os, time\nfor _ in range(12):\n    try: os.fork()\n    except OSError: break\ntime.sleep(600)\n"
    flood = "import sys\nwhile True:\n    sys.stdout.write('x' * 65536)\n"
    for smoke in (bomb, flood):
        began = time.monotonic()
        result = await staged(tmp_path, seconds=4.0, smoke=smoke)
        assert not result.passed
        assert time.monotonic() - began < 60


async def test_an_artifact_that_is_none_is_a_failure_not_a_crash(tmp_path: Path) -> None:
    good = archive(tmp_path / "r")
    made = request(good)
    result = await LocalRunner().run(Request("n", made.manifest, b"not a tar", (), 10.0))
    assert (result.passed, "unpacked" in result.failures[0]) == (False, True)


async def test_no_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    # Its own, since others stage beside this test.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    assert (await staged(tmp_path)).passed
    assert list((tmp_path / "t").iterdir()) == []


GOOD = {"nonce": "n", "passed": True, "tests_run": 2, "tests_passed": 2, "failures": [], "seconds": 1.0}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"<html>",
        json.dumps(GOOD | {"nonce": "of another job"}).encode(),
        json.dumps(GOOD).encode() * 2,
        json.dumps(GOOD | {"tests_run": -1}).encode(),
        json.dumps(GOOD | {"tests_passed": 3}).encode(),
        json.dumps(GOOD | {"tests_run": True}).encode(),
        json.dumps(GOOD | {"passed": "yes"}).encode(),
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_not_exactly_one_result_for_this_request_counts_for_nothing(answer: bytes) -> None:
    with pytest.raises(StagingLostError):
        read(answer, "n")


def test_zero_tests_never_pass_and_a_claim_does_not_replace_a_count() -> None:
    assert not read(json.dumps(GOOD | {"tests_run": 0, "tests_passed": 0}).encode(), "n").passed
    assert not read(json.dumps(GOOD | {"tests_passed": 1}).encode(), "n").passed
    assert read(json.dumps(GOOD).encode(), "n").passed


def test_results_are_comparable_only_for_the_same_suite(tmp_path: Path) -> None:
    manifest = request(archive(tmp_path / "r")).manifest
    assert suite(manifest, ("a", "b")) == suite(manifest, ("b", "a"))
    assert suite(manifest, ("a",)) != suite(manifest, ())


class TestTheHttpRunner:
    """A runner elsewhere, which may be anything."""

    @pytest.fixture
    async def serve(self) -> AsyncIterator[Callable[[bytes], Any]]:
        servers: list[asyncio.Server] = []
        writers: list[asyncio.StreamWriter] = []
        self.asked: list[bytes] = []

        async def start(answer: bytes) -> HttpRunner:
            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.asked.append(head + body)
                nonce = json.loads(body)["nonce"].encode()
                writers.append(writer)
                writer.write(answer.replace(b"NONCE", nonce))
                await writer.drain()
                if b"HANG" not in answer:
                    writer.close()

            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            servers.append(server)
            return HttpRunner(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "secret-token")

        yield start
        for writer in writers:
            writer.close()
        for server in servers:
            server.close()
            await server.wait_closed()

    def answer(self, body: bytes, status: str = "200 OK", kind: str = "application/json", extra: str = "") -> bytes:
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{extra}connection: close\r\n\r\n"
        return head.encode() + body

    async def test_a_result_with_this_nonce_counts(self, serve: Any, tmp_path: Path) -> None:
        runner = await serve(self.answer(json.dumps(GOOD | {"nonce": "NONCE"}).encode()))
        result = await runner.run(request(archive(tmp_path / "r")))
        assert (result.passed, result.tests_run) == (True, 2)
        assert b"POST /run" in self.asked[0]
        assert b"Bearer secret-token" in self.asked[0]

    @pytest.mark.parametrize(
        ("body", "more"),
        [
            (json.dumps(GOOD | {"nonce": "other"}).encode(), {}),
            (b"{", {}),
            (b"<html>fine</html>", {"kind": "text/html"}),
            (b"", {"status": "500 Oops"}),
            (b"", {"status": "302 Found", "extra": "location: http://127.0.0.1:1/run\r\n"}),
            (b"x" * 400_000, {}),
            (b"HANG", {"extra": "content-length: 100\r\n"}),
        ],
        ids=["another job", "half JSON", "html", "500", "redirect", "endless", "hangs"],
    )
    async def test_anything_else_is_no_result(
        self, serve: Any, tmp_path: Path, body: bytes, more: dict[str, str]
    ) -> None:
        runner = await serve(self.answer(body, **more))
        with pytest.raises(StagingLostError):
            await runner.run(request(archive(tmp_path / "r"), seconds=2.0))

    async def test_nobody_there_is_no_result(self, tmp_path: Path) -> None:
        with pytest.raises(StagingLostError, match="did not answer"):
            await HttpRunner("http://127.0.0.1:9", "").run(request(archive(tmp_path / "r"), seconds=2.0))
