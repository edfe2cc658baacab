"""Help and completion answer at once: a command imports what it needs when it runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from typer.testing import CliRunner

from cli.main import app

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("grpc", "google", "sqlalchemy", "asyncpg", "nats", "pydantic", "structlog", "opentelemetry", "libs", "deploy")


def test_starting_imports_nothing_heavy() -> None:
    program = f"import sys, cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = CliRunner().invoke(app, ["--version"]).stdout.strip()
    assert f"prunella-agent[supervisor]=={version}" in project["dependencies"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_every_command_has_a_sentence_of_help() -> None:
    for words in (
        ["plugins"],
        ["incidents"],
        ["decisions"],
        ["attempts"],
        ["releases"],
        ["kill-switch"],
        ["demo"],
        ["queue"],
        ["errors"],
        ["strategies"],
        ["proposals"],
        ["policy"],
        ["rollout"],
        ["storms"],
        ["configurations"],
        ["policy"],
        ["rollout"],
        ["storms"],
        ["configurations"],
    ):
        shown = CliRunner().invoke(app, [*words, "--help"])
        assert shown.exit_code == 0
        assert "Commands" in shown.stdout


def test_a_group_lists_when_no_command_is_named_and_corrects_a_slip() -> None:
    slip = CliRunner().invoke(app, ["incidents", "shwo"])
    assert slip.exit_code == 2
    assert "show" in slip.stderr
