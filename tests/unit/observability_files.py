"""What dashboards, alerts and runbooks say, for tests: every PromQL expression, every metric and label it names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "deploy" / "observability"
RUNBOOKS = ROOT / "docs" / "runbooks"
METRIC = re.compile(r"\b((?:prunella|process)_[a-z0-9_]+)")
MATCHER = re.compile(r"\b((?:prunella|process)_[a-z0-9_]+)\{([^}]*)\}")
BY = re.compile(r"\bby \(([^)]*)\)")
SUFFIXES = ("_bucket", "_count", "_sum", "_total")
# Labels that Prometheus or its targets add.
ADDED = {"instance", "job", "process", "le"}


def alerts() -> list[dict[str, Any]]:
    content = yaml.safe_load((OBSERVABILITY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def dashboards() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((OBSERVABILITY / "grafana").glob("*.json")):
        yield path.name, json.loads(path.read_text())


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and what it asks."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for name, board in dashboards():
        for panel in board["panels"]:
            yield from ((f"{name}: {panel['title']}", target["expr"]) for target in panel["targets"])


def metrics(expression: str) -> set[str]:
    return set(METRIC.findall(expression))


def bases(name: str) -> set[str]:
    """What a metric may be called where it is made."""
    return {name, *(name.removesuffix(suffix) for suffix in SUFFIXES)}


def labels(expression: str) -> set[str]:
    """Labels an expression chooses or groups by."""
    chosen = {
        part.split("=")[0].strip(" !~") for _, inside in MATCHER.findall(expression) for part in inside.split(",")
    }
    grouped = {part.strip() for inside in BY.findall(expression) for part in inside.split(",")}
    return (chosen | grouped) - ADDED
