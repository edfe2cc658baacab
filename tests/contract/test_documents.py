"""What README and docs say is there: the tests that prove promises, the commands, the pages that are linked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from cli.main import app

ROOT = Path(__file__).resolve().parents[2]
README_LINES, README_COLUMNS = 120, 120
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROVEN = re.compile(r"`(tests/[\w/.-]+)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
# A path of this tree in backticks; `{a,b}` stands for both.
NAMED = re.compile(r"`((?:services|libs|tests|deploy|cli|protos/prunella)/[\w/.{},-]+)`")
COMMAND = re.compile(r"`prunella ([a-z][a-z-]+)|· `([a-z][a-z-]+)")


def test_every_promise_names_tests_that_exist() -> None:
    rows = [line for line in (ROOT / "docs/promises.md").read_text().splitlines() if line.startswith("| ")]
    promises = rows[1:]
    assert len(promises) > 15
    assert not [row for row in promises if not PROVEN.findall(row)]
    named = {path for row in promises for path in PROVEN.findall(row)}
    assert not sorted(path for path in named if not (ROOT / path).is_file())


def test_every_command_has_its_row() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    described = {name for pair in COMMAND.findall(text) for name in pair if name}
    known = set(getattr(typer.main.get_command(app), "commands", {}))
    assert known <= described
    assert {name for name, _ in COMMAND.findall(text) if name} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_that_is_linked_is_there(page: Path) -> None:
    linked = LINK.findall(page.read_text())
    assert not [target for target in linked if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.stem)
def test_every_place_that_is_named_is_there(page: Path) -> None:
    named = {one for path in NAMED.findall(page.read_text()) for one in spread(path)}
    assert not sorted(one for one in named if not any(ROOT.glob(one)))


def spread(path: str) -> list[str]:
    """The paths that one with `{a,b}` stands for."""
    head, brace, rest = path.partition("{")
    if not brace:
        return [path]
    inner, _, tail = rest.partition("}")
    return [head + one + tail for one in inner.split(",")]


def test_the_readme_fits_a_stranger() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= README_LINES
    assert max(map(len, lines)) <= README_COLUMNS
