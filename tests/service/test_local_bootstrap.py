"""The bootstrap: nothing to do is done at once, what is missing is named, and the lock holds nothing but packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.lock import HEADER, LINE, LOCK

ROOT = Path(__file__).resolve().parents[2]


def bootstrap(kind: str, checkout: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(checkout / "deploy" / "bootstrap.py"), kind],
        env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files the bootstrap reads, without an environment."""
    for name in ("deploy/bootstrap.py", "deploy/overrides.txt", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "protos").mkdir()
    shutil.copy(ROOT / "protos" / "generate.py", tmp_path / "protos" / "generate.py")
    return tmp_path


def test_without_venv_the_line_to_type_is_said(checkout: Path) -> None:
    (checkout / "hidden").mkdir()
    (checkout / "hidden" / "ensurepip.py").write_text("raise ImportError('split into a package of its own')")
    done = bootstrap("run", checkout, PYTHONPATH=str(checkout / "hidden"))
    assert done.returncode == 1
    assert f"apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_set_is_refused(checkout: Path) -> None:
    done = bootstrap("everything", checkout)
    assert done.returncode == 2
    assert "run|test" in done.stderr


def test_packages_that_cannot_be_had_are_said_without_a_traceback(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    # Whatever installer is found, it finds no registry.
    away = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(checkout / "cache"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    done = bootstrap("run", checkout, **away)
    assert done.returncode == 1
    assert "packages could not be installed; is a package registry reachable?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout / ".venv" / "prunella.json").exists(), "the next call must try again"


def test_the_lock_names_versions_and_hashes_and_nothing_else() -> None:
    lines = LOCK.read_text().removeprefix(HEADER).splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert sum("==" in line and not line.startswith(" ") for line in lines) > 80


def test_everything_the_project_asks_for_is_in_the_lock_in_a_version_it_accepts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    pinned = [line.split(" ")[0].split("==") for line in LOCK.read_text().splitlines() if "==" in line.split(" ")[0]]
    versions = dict(pinned)
    for wanted in map(Requirement, asked):
        # Ourselves and the agent, which a checkout has.
        if wanted.name not in {project["name"], "prunella-agent"}:
            assert wanted.specifier.contains(versions[wanted.name], prereleases=True), wanted
