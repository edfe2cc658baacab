"""A neighbour that has taken all processes of the sandbox's user says nothing of the release that cannot start."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import pytest

from services.patcher.staging.sandbox import Stage, Stop

REQUEST = {"entrypoint": ["python", "main.py"]}


class Crowded(Stage):
    """Finds no room so often."""

    refusals = 0

    def _start(self, command: Any, output: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return command, output


def stage(folder: Path, seconds: float, refusals: int) -> Crowded:
    made = Crowded(folder, REQUEST, time.monotonic() + seconds)
    made.refusals = refusals
    return made


def test_it_starts_as_soon_as_there_is_room(tmp_path: Path) -> None:
    waiting = stage(tmp_path, 30.0, 3)
    assert waiting._start_when_there_is_room("output") == (REQUEST["entrypoint"], "output")
    assert waiting.refusals == 0


def test_without_room_until_its_time_is_over_that_is_what_it_says(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="no process could be started: another sandbox of this user has taken them all"):
        stage(tmp_path, 0.2, 10**6)._start_when_there_is_room("output")


def test_any_other_failure_to_start_is_the_releases_own(tmp_path: Path) -> None:
    class Broken(Stage):
        def _start(self, command: Any, output: Any) -> Any:
            raise FileNotFoundError(errno.ENOENT, "No such file")

    with pytest.raises(FileNotFoundError):
        Broken(tmp_path, REQUEST, time.monotonic() + 5)._start_when_there_is_room("output")
