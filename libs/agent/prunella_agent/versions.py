"""Versions of releases and programs, and which of two is later.

Rule: numbers first, missing ones are zero; a pre-release comes before its release; its parts compare as semver.org says
(2.0.0, rule 11). `1.2.0rc1`, as Python writes it, is read as `1.2.0-rc1`. What cannot be read, and what differs in its
build alone, is neither earlier nor later: whoever asks has to decide without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

_FORM = re.compile(
    r"v?(?P<numbers>[0-9]{1,9}(?:\.[0-9]{1,9}){0,7})(?:-?(?P<pre>(?:(?<=-)[0-9A-Za-z]|[a-z])[0-9A-Za-z.-]*))?"
    r"(?:\+(?P<build>[0-9A-Za-z.-]*))?"
)


@dataclass(frozen=True, slots=True)
class Version:
    """A version that could be read; `pre` is empty for a release proper."""

    numbers: tuple[int, ...]
    pre: tuple[str, ...] = ()
    build: str = ""

    @property
    def major(self) -> tuple[int, ...]:
        """What may not change without people: the first number, and with 0 the second too (rules 4 and 8)."""
        first, second, *_ = (*self.numbers, 0, 0)
        return (first,) if first else (first, second)


def parse(text: str) -> Version | None:
    """The version in a text; None for what is none."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    numbers = tuple(int(part) for part in found["numbers"].split("."))
    pre = tuple(part for part in (found["pre"] or "").split(".") if part)
    return Version(numbers, pre, found["build"] or "")


def order(one: Version, other: Version) -> int:
    """Negative when `one` is earlier, positive when it is later, 0 when neither is."""
    for left, right in zip_longest(one.numbers, other.numbers, fillvalue=0):
        if left != right:
            return left - right
    if not one.pre or not other.pre:
        return bool(other.pre) - bool(one.pre)
    for mine, theirs in zip_longest(one.pre, other.pre):
        if mine != theirs:
            return _part(mine, theirs)
    return 0


def _part(mine: str | None, theirs: str | None) -> int:
    if mine is None or theirs is None:
        return -1 if mine is None else 1
    if mine.isdigit() and theirs.isdigit():
        return int(mine) - int(theirs)
    if mine.isdigit() != theirs.isdigit():
        return -1 if mine.isdigit() else 1
    return -1 if mine < theirs else 1
