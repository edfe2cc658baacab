"""One trial: the tests of a heart, run with a changed source of it, in a process of its own.

Rule: nothing is written. The changed source comes from memory when the heart is imported, so an interrupt leaves no
trace. The process is forked after the expensive libraries were imported, and before any of ours was.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 0.02


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module in memory instead of in its file."""

    def __init__(self, name: str, source: str, path: str) -> None:
        self.name, self.source, self.path = name, source, path

    def find_spec(
        self, name: str, _path: object = None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec, when it is that one."""
        return importlib.util.spec_from_loader(name, self, origin=self.path) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        """Runs the changed source."""
        module.__file__ = self.path
        exec(compile(self.source, self.path, "exec"), module.__dict__)  # noqa: S102 - the mutant


def module_of(heart: str) -> str:
    """The name under which a file is imported."""
    return heart.removeprefix("libs/agent/").removesuffix(".py").replace("/", ".")


def prepare() -> None:
    """Imports what every trial needs and none of it changes."""
    for name in ("pytest", "_pytest.assertion.rewrite", "hypothesis", "google.protobuf.message", "grpc", "sqlalchemy"):
        importlib.import_module(name)


def killed(heart: str, source: str, tests: Sequence[str], seconds: float) -> bool:
    """Whether the tests notice this source: they fail, or do not end within `seconds`."""
    child = os.fork()
    if not child:
        _run(heart, source, tests)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(LOOK_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _run(heart: str, source: str, tests: Sequence[str]) -> None:
    """The child: never returns."""
    code = 99
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.environ["CI"] = "1"  # the same examples each time
        os.chdir(ROOT)
        sys.meta_path.insert(0, Changed(module_of(heart), source, str(ROOT / heart)))
        import pytest

        files = [f"tests/unit/{name}.py" for name in tests]
        code = int(pytest.main(["-x", "-q", "--no-header", "-p", "no:randomly", *files]))
    except BaseException:  # noqa: BLE001 - a mutant that cannot even be imported was noticed
        code = 98
    finally:
        os._exit(code)
