"""One dictionary: tables, messages and modules of services are called by words that docs/glossary.md explains."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunella.v1 import (
    agent_pb2,
    annotations_pb2,
    audit_pb2,
    decider_pb2,
    events_pb2,
    ingest_pb2,
    kpis_pb2,
    notification_pb2,
    ops_pb2,
    overview_pb2,
    patcher_pb2,
    queue_pb2,
    stories_pb2,
)

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs/glossary.md"
FILES = (
    agent_pb2, annotations_pb2, audit_pb2, decider_pb2, events_pb2, ingest_pb2, kpis_pb2, notification_pb2, ops_pb2,
    overview_pb2, patcher_pb2, queue_pb2, stories_pb2,
)  # fmt: skip
# What a request or an answer adds to the name of its method.
VERBS_AND_SHAPES = {"request", "response"}
# House words that standard terms have replaced: no module, class, function, column, field or argument is called so.
RETIRED = frozenset(
    [
        "marks",
        "reins",
        "side_road",
        "needs",
        "told",
        "heard",
        "said",
        "drawing",
        "leash",
        "letters",
        "book",
        "shelf",
        "sense",
        "pulse",
        "pulses",
        "weigh",
        "weighed_out",
        "weighed",
        "hearing",
        "raging",
        "trouble",
        "chronicle",
        "moments",
        "unasked",
        "unswitched",
        "taking_back",
        "pass_on",
        "sealing",
    ]
)


def explained() -> set[str]:
    """The words of the glossary: bold words of its tables, and its list of plain English."""
    tables, _, plain = GLOSSARY.read_text().partition("## Plain English")
    assert plain, "docs/glossary.md ends with the section '## Plain English'"
    rows = re.findall(r"^\| \*\*(.+?)\*\*", tables, re.MULTILINE)
    return {word for text in (*rows, plain) for word in re.findall(r"[a-z]+", text.lower())}


def words(name: str) -> Iterator[str]:
    """The words of a name in snake_case or CamelCase, lower-case."""
    for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name):
        yield part.lower()


def known(word: str, dictionary: set[str]) -> bool:
    """Whether a word, or what it is a plural or a verb form of, is explained."""
    stems = [word, word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word)]
    return any(stem in dictionary for stem in stems)


def tables() -> Iterator[str]:
    """Every table and view that a first revision makes."""
    for path in sorted(ROOT.glob("services/*/migrations/versions/*.py")) + sorted(
        ROOT.glob("libs/common/migrations/versions/*.py")
    ):
        yield from re.findall(r"CREATE (?:TABLE|VIEW) (?:\w+|\{\w+\})\.(\w+)", path.read_text())


def messages() -> Iterator[str]:
    """Every message of the protos."""
    for file in FILES:
        yield from file.DESCRIPTOR.message_types_by_name


def modules() -> Iterator[str]:
    """Every file and folder of a service."""
    for path in sorted(ROOT.glob("services/**/*.py")):
        parts = path.relative_to(ROOT / "services").parts
        if "migrations" not in parts and "web" not in parts[1:2]:
            yield from (part.removesuffix(".py") for part in parts if not part.startswith("__"))


@pytest.mark.parametrize(("kind", "names"), [("table", tables), ("message", messages), ("module", modules)])
def test_every_name_is_made_of_words_that_the_glossary_explains(kind, names) -> None:
    dictionary = explained()
    found = sorted(set(names()))
    assert len(found) > 20, f"found only {found}: are the files still where they were?"
    strange = {
        name: unknown
        for name in found
        if (unknown := [w for w in words(name) if not known(w, dictionary) and w not in VERBS_AND_SHAPES])
    }
    assert not strange, f"explain in docs/glossary.md, or use a word that is there: {strange}"


def test_a_strange_word_is_found() -> None:
    dictionary = explained()
    assert not known("zeugma", dictionary)
    assert known("incidents", dictionary)
    assert list(words("AttemptRolledBack")) == ["attempt", "rolled", "back"]
    assert list(words("kill_switches")) == ["kill", "switches"]


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=False)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """What a Python file calls its own: definitions, arguments, attributes and names, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string.strip("_").lower()


def test_retired_words_stay_retired() -> None:
    found = []
    for path in tracked("*.py"):
        name = path.relative_to(ROOT)
        if name.parts[0] == "tests" or "migrations" in name.parts:
            continue
        if path.stem in RETIRED:
            found.append(str(name))
        found += [f"{name}:{line}: {word}" for line, word in identifiers(path) if word in RETIRED]
    for path in tracked("*.proto"):
        fields = re.findall(r"^\s*(?:repeated |optional )?[\w.<>, ]+ (\w+) = \d+;", path.read_text(), re.MULTILINE)
        found += [f"{path.relative_to(ROOT)}: {field}" for field in fields if field in RETIRED]
    assert not found, "\n".join(found)


def test_first_revisions_make_tables_by_statements_that_can_be_read_here() -> None:
    for path in tracked("services/*/migrations/versions/*.py"):
        ast.parse(path.read_text())
        assert "CREATE TABLE" in path.read_text(), path
