"""Texts for people: shortened, quoted, and durations in words."""

from __future__ import annotations


def shortened(text: str, most: int) -> str:
    """The text in at most so many characters; an ellipsis stands for what is left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def quoted(text: str, most: int) -> str:
    """One line of somebody else's text in quotation marks."""
    return f"“{shortened(' '.join(text.split()), most)}”"


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as `1 fact` or `3 facts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def times(number: float) -> str:
    """How often, such as `once` or `3 times`."""
    return "once" if number == 1 else f"{int(number)} times"


def duration(seconds: float) -> str:
    """A duration in its largest fitting unit, such as `9.0 s` or `4 min`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
