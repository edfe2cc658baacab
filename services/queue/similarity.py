"""Reports that say nearly the same, suggested for merging.

Rule: only reports of one plugin and one type are compared, by the words of their normalised messages: what two messages
share of all their words and of all their pairs of neighbouring words (Jaccard, both counted alike). From 0.6 on they
are alike, and a group is what is alike to its first member, the one that occurred most. Placeholders are no words of
their own: messages that share nothing but these are not alike. A report that people split is never suggested again.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

ALIKE = 0.6
# Groups are compared member by member; more than so many of one type would take too long.
MOST_COMPARED = 200
_WORD = re.compile(r"<\w{1,20}>|\w{1,64}")
LEAST_WORDS = 3


@dataclass(frozen=True)
class Candidate:
    """A report that may be like another; `message` is its normalised message."""

    id: str
    plugin: str
    type: str
    message: str
    occurrences: int


@dataclass(frozen=True)
class Suggestion:
    """Reports that could be one; `into` occurred most. `similarity` is the lowest of `reports` with `into`, 0 to 1."""

    into: Candidate
    reports: tuple[Candidate, ...]
    similarity: float


def similarity(one: str, other: str) -> float:
    """How much two normalised messages share, 0 to 1."""
    return _shared(_features(one), _features(other))


def suggestions(candidates: Iterable[Candidate]) -> list[Suggestion]:
    """Groups that are alike, the largest first; each report is in one group at most."""
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for one in candidates:
        groups.setdefault((one.plugin, one.type), []).append(one)
    found = [suggestion for group in groups.values() for suggestion in _within(group)]
    return sorted(found, key=lambda one: (-len(one.reports), -one.into.occurrences, one.into.id))


def _within(group: Sequence[Candidate]) -> list[Suggestion]:
    ordered = sorted(group, key=lambda one: (-one.occurrences, one.id))[:MOST_COMPARED]
    left = [(one, _features(one.message)) for one in ordered]
    found = []
    while left:
        (into, words), *rest = left
        scores = [(one, features, _shared(words, features)) for one, features in rest]
        alike = [(one, score) for one, _, score in scores if score >= ALIKE]
        if alike:
            found.append(Suggestion(into, tuple(one for one, _ in alike), min(score for _, score in alike)))
        left = [(one, features) for one, features, score in scores if score < ALIKE]
    return found


def _features(message: str) -> frozenset[tuple[str, ...]]:
    words = [word.lower() for word in _WORD.findall(message)]
    own = {(word,) for word in words if not word.startswith("<")}
    if len(own) < LEAST_WORDS:
        return frozenset()
    return frozenset(own | set(pairwise(words)))


def _shared(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    together = one | other
    return len(one & other) / len(together) if together else 0.0
