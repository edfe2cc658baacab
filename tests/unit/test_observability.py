"""Dashboards, alerts and runbooks speak of what is there: metrics, labels, pages, commands."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.main import app
from deploy.observability.dashboards import DASHBOARDS, FOLDER, render
from deploy.observability.targets import targets
from libs.common.telemetry import declared
from tests.unit.observability_files import ROOT, RUNBOOKS, alerts, bases, expressions, labels, metrics

SERVICES = ("ingest", "decider", "patcher", "queue", "ops")
SEVERITIES = {"critical", "high", "medium", "low"}
COMMAND = re.compile(r"`(prunella [^`]+)`")
FENCED = re.compile(r"^(prunella .+?)(?:\s+#.*)?$", re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def _services() -> None:
    for service in SERVICES:
        importlib.import_module(f"services.{service}.service")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_the_files_are_what_the_description_gives(dashboard: Any) -> None:
    assert (FOLDER / f"{dashboard.uid}.json").read_text() == render(dashboard), (
        "type: python -m deploy.observability.dashboards"
    )


def test_no_file_is_left_from_a_dashboard_that_went() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {dashboard.uid for dashboard in DASHBOARDS}


def test_every_metric_that_is_drawn_or_alerted_on_is_made_somewhere_with_these_labels() -> None:
    made = declared()
    wrong = []
    for where, expression in expressions():
        known = set[str]()
        for name in metrics(expression):
            base = next((one for one in bases(name) if one in made), None)
            known |= set(made[base]) if base else set()
            if base is None and not name.startswith("process_"):
                wrong.append(f"{where}: nobody makes {name}")
        wrong += [f"{where}: no metric in it has the label {label}" for label in labels(expression) - known]
    assert not wrong, "\n".join(wrong)


def test_brackets_close_in_every_expression() -> None:
    for where, expression in expressions():
        for opening, closing in ("()", "[]", "{}"):
            assert expression.count(opening) == expression.count(closing), where
        assert expression.count('"') % 2 == 0, where


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    named = [rule["alert"] for rule in alerts()]
    assert len(named) == len(set(named))
    assert set(named) == {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    listed = set(re.findall(r"\]\((\w+)\.md\)", (RUNBOOKS / "README.md").read_text()))
    assert listed == set(named)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_names_its_page_and_the_page_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"
    page = (ROOT / rule["annotations"]["runbook"]).read_text()
    assert page.startswith(f"# {rule['alert']}\n\nSeverity: {rule['labels']['severity']}.\n")
    for heading in ("## What it means", "## What it does to the fleet", "## Look", "## Do"):
        assert f"\n{heading}\n" in page
    # Whoever is woken must be able to go from one page to the next.
    assert set(re.findall(r"\]\((\w+)\.md\)", page)) <= {each["alert"] for each in alerts()}


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_every_command_of_a_page_can_be_typed(page: Path) -> None:
    root: Any = typer.main.get_command(app)
    text = page.read_text().replace("\\|", "|")
    fenced = "\n".join(re.findall(r"```\n(.*?)```", text, re.DOTALL))
    for line in [*COMMAND.findall(text), *FENCED.findall(fenced)]:
        typed = shlex.split(line.split("|")[0])[1:]
        command = root
        while typed and not typed[0].startswith("-") and typed[0] in getattr(command, "commands", {}):
            command = command.commands[typed.pop(0)]
        if hasattr(command, "commands") and command is not root:
            command = command.commands[command.default]
        assert command is not root or not typed or typed[0].startswith("-"), f"there is no such command: {line}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        unknown = [word for word in typed if word.startswith("-") and word not in known]
        assert not unknown, f"{line}: {unknown}"


def test_prometheus_finds_every_service() -> None:
    assert targets({"ops": "127.0.0.1:2", "ingest": "127.0.0.1:1"}) == [
        {"targets": ["127.0.0.1:1"], "labels": {"process": "ingest"}},
        {"targets": ["127.0.0.1:2"], "labels": {"process": "ops"}},
    ]
