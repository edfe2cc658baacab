"""The catalogue: types of errors with the patterns that match them, and the strategies for them with their statuses.

Rule: a type has a severity, the fields its patterns look at, and how sure each pattern is. The surest pattern that fits
a report names its type; of equally sure ones the first in the file. `catalogue_file` reads it from a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.queue.patterns import Pattern
from services.queue.report import Report
from services.queue.strategies import StrategySet, StrategyStatus

FIELDS = ("type", "message", "module", "stack", "context")
# How many characters of each field patterns look at.
CHARACTERS = {"type": 200, "message": 8192, "module": 200, "stack": 65536, "context": 8192}
MOST_CONTEXT = 32


@dataclass(frozen=True)
class TypePattern:
    """A pattern, and how sure one can be of the type where it fits."""

    pattern: Pattern
    confidence: float


@dataclass(frozen=True)
class ErrorType:
    """A type of error."""

    name: str
    title: str
    severity: str
    fields: tuple[str, ...]
    type_patterns: tuple[TypePattern, ...]


@dataclass(frozen=True)
class Match:
    """A pattern that fitted, what it fitted, and where."""

    error_type: ErrorType
    type_pattern: TypePattern
    field: str
    found: str


@dataclass(frozen=True)
class Catalogue:
    """A checked catalogue. `version` is a digest of its text."""

    version: str
    error_types: tuple[ErrorType, ...]
    strategy_set: StrategySet

    def error_type(self, name: str) -> ErrorType | None:
        """The type with this name, or None."""
        return next((error_type for error_type in self.error_types if error_type.name == name), None)

    def with_statuses(self, statuses: Mapping[str, StrategyStatus]) -> "Catalogue":
        """The same catalogue with what became of its strategies so far."""
        return replace(self, strategy_set=replace(self.strategy_set, statuses=statuses))

    def match(self, report: Report) -> Match | None:
        """The surest pattern that fits the report, or None."""
        texts = {name: _text(report, name) for name in FIELDS}
        best: Match | None = None
        for error_type in self.error_types:
            for type_pattern in error_type.type_patterns:
                if best and best.type_pattern.confidence >= type_pattern.confidence:
                    continue
                for name in error_type.fields:
                    if found := type_pattern.pattern.found(texts[name]):
                        best = Match(error_type, type_pattern, name, found)
                        break
        return best


def _text(report: Report, name: str) -> str:
    if name == "context":
        value = "\n".join(f"{key}: {value}" for key, value in list(report.context.items())[:MOST_CONTEXT])
    else:
        value = getattr(report, name)
    return str(value)[: CHARACTERS[name]].lower()
