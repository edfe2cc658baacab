"""What a release prints is anything: it is shown as text that can be kept, and does not make it run again."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices
from services.patcher.staging.local import read
from tests.service.patcher_alone import MAIN, PatcherAlone, archive

BAD = "\N{REPLACEMENT CHARACTER}"


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        yield await patcher.start(agent=True)
    finally:
        await patcher.stop()


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"main": "raise SystemExit('no\\0sink \\x1b[31mhere')"}, f"no{BAD}sink here"),
        (
            {"smoke": r"""print('{"test": "t\\u0000", "ok": false, "detail": "half \\ud83d of it"}')"""},
            f"t{BAD}: half {BAD} of it",
        ),
    ],
    ids=["dies at its start", "fails a test"],
)
async def test_a_release_that_prints_no_text_fails_once_with_a_readable_reason(
    alone: PatcherAlone, tmp_path: Path, files: dict[str, str], why: str
) -> None:
    await alone.publish(archive(tmp_path / "r", **files))
    await alone.decide()
    attempt = await alone.attempt("failed")
    assert why in " ".join(attempt.staging.failures)
    errands = await alone.plane.sql("SELECT attempts FROM patcher.errands WHERE kind = 'stage'")
    assert [row.attempts for row in errands] == [1], "the sandbox ran once"


async def test_a_good_release_may_print_what_it_likes(alone: PatcherAlone, tmp_path: Path) -> None:
    smoke = r"""print("\0\ud800".encode("utf-8", "surrogatepass").decode("latin-1"))
print('{"test": "t\\u0000\\udfff", "ok": true, "detail": "\\u001b]0;title\\u0007"}')"""
    alone.report()
    await alone.publish(archive(tmp_path / "r", main="print('\\0\\x1b[2J', flush=True)\n" + MAIN, smoke=smoke))
    await alone.decide()
    assert (await alone.attempt("success")).staging.passed


def test_the_result_of_any_runner_is_cleaned_where_it_is_read() -> None:
    told = {"nonce": "n", "passed": False, "tests_run": 1, "tests_passed": 0, "seconds": 1.0}
    result = read(
        json.dumps(told | {"failures": ["a\0\ud800\n\x9b31mb"], "network": "\0", "user": "\x1b"}).encode(), "n"
    )
    assert (result.failures, result.network, result.user) == ((f"a{BAD}{BAD}\n{BAD}31mb",), BAD, BAD)
