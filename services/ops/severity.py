"""Severities: how harmful an incident, an error or a fact is, as a number that sorts and as a word."""

from __future__ import annotations

from enum import IntEnum


class Severity(IntEnum):
    """From least to most harmful; CRITICAL notifications are sent in quiet hours, too."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def word(self) -> str:
        """Its name in lower case."""
        return self.name.lower()


SEVERITIES = tuple(severity.word for severity in Severity)


def number(word: str) -> int:
    """1 (low) to 4 (critical); 0 for a word that is no severity."""
    return SEVERITIES.index(word) + 1 if word in SEVERITIES else 0


def word(number: int) -> str:
    """The severity of a number in lower case; empty when there is none."""
    return SEVERITIES[number - 1] if 0 < number <= len(SEVERITIES) else ""
