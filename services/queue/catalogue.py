"""The book: types of errors with the patterns that tell them, and the strategies against them, with their standings.

Rule: a type has a severity, the fields its patterns look at, and how sure each pattern is. The surest pattern that fits
a report names its type; of equally sure ones the first in the file. `reading` makes a book of a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.queue.patterns import Pattern
from services.queue.report import Report
from services.queue.strategies import Shelf, Standing

FIELDS = ("type", "message", "module", "stack", "context")
# How many characters of each field patterns look at.
CHARACTERS = {"type": 200, "message": 8192, "module": 200, "stack": 65536, "context": 8192}
MOST_CONTEXT = 32


@dataclass(frozen=True)
class Tell:
    """A pattern, and how sure one can be of the type where it fits."""

    pattern: Pattern
    confidence: float


@dataclass(frozen=True)
class Kind:
    """A type of error."""

    name: str
    title: str
    severity: str
    fields: tuple[str, ...]
    tells: tuple[Tell, ...]


@dataclass(frozen=True)
class Match:
    """A pattern that fitted, what it fitted, and where."""

    kind: Kind
    tell: Tell
    field: str
    found: str


@dataclass(frozen=True)
class Book:
    """A book that was checked. `version` is a digest of its text."""

    version: str
    kinds: tuple[Kind, ...]
    shelf: Shelf

    def kind(self, name: str) -> Kind | None:
        """The type with this name, or None."""
        return next((kind for kind in self.kinds if kind.name == name), None)

    def standing(self, standings: Mapping[str, Standing]) -> "Book":
        """The same book with what became of its strategies so far."""
        return replace(self, shelf=replace(self.shelf, standings=standings))

    def match(self, report: Report) -> Match | None:
        """The surest pattern that fits the report, or None."""
        texts = {name: _text(report, name) for name in FIELDS}
        best: Match | None = None
        for kind in self.kinds:
            for tell in kind.tells:
                if best and best.tell.confidence >= tell.confidence:
                    continue
                for name in kind.fields:
                    if found := tell.pattern.found(texts[name]):
                        best = Match(kind, tell, name, found)
                        break
        return best


def _text(report: Report, name: str) -> str:
    if name == "context":
        value = "\n".join(f"{key}: {said}" for key, said in list(report.context.items())[:MOST_CONTEXT])
    else:
        value = getattr(report, name)
    return str(value)[: CHARACTERS[name]].lower()
