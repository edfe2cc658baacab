r"""Patterns: how a type of error is recognised in its text, in a language that cannot be slow.

Rule: a pattern is a regular expression of a small kind, matched without regard to case. Allowed are literals, escapes
(\. \d \w \s \b and the like), `.`, classes, one level of groups `(?:a|b)`, and the quantifiers `?` and `{m,n}` with
n ≤ 80 on a single sign or class; a group may only take `?`. There is no `*`, no `+`, no reference, no look-around and
no group in a group. The ways a pattern may be tried at one place are counted when it is read (its cost) and may be 300
at most. So a text of n signs costs at most 300 n steps, whatever it holds; one that fails to match costs no more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

LONGEST = 200
MOST_REPEATS = 80
MOST_COST = 300
SHORTEST_LITERAL = 3
_ESCAPES = frozenset(r"dDwWsSbB.\/()[]{}|?*+^$-'\"@#%&:=<>,~")
_BOUNDS = re.compile(r"\{(\d{1,3})(?:,(\d{1,3}))?\}")


@dataclass(frozen=True)
class Pattern:
    """A checked pattern. `found` looks in text that was made lower case before."""

    text: str
    cost: int = field(compare=False)
    regex: re.Pattern[str] = field(compare=False, repr=False)

    def found(self, lowered: str) -> str:
        """The first place in a lower-case text that it fits, or nothing."""
        match = self.regex.search(lowered)
        return match.group() if match else ""


def read(text: str) -> Pattern:
    """A pattern. Raises ValueError with the rule that `text` breaks."""
    if not text or len(text) > LONGEST:
        raise ValueError(f"must have 1 to {LONGEST} characters")
    if text != _lowered(text):
        raise ValueError("must be lower case; texts are compared in lower case")
    cost = _Scan(text).cost()
    if cost > MOST_COST:
        raise ValueError(f"may be tried in {MOST_COST} ways at one place, not {cost}: shorten its repetitions")
    try:
        regex = re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if regex.search(""):
        raise ValueError("must not fit an empty text")
    return Pattern(text, cost, regex)


def _lowered(text: str) -> str:
    """Lower case, except the letter of an escape: \\W is not \\w."""
    parts = re.split(r"(\\.)", text)
    return "".join(part if part.startswith("\\") else part.lower() for part in parts)


class _Scan:
    """One pass over a pattern: checks each piece and multiplies the ways it may be tried."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.literals = 0

    def cost(self) -> int:
        """The ways in which the whole may be tried at one place. Raises ValueError for what is not allowed."""
        cost = 1
        while self.place < len(self.text):
            cost *= self._group() if self.text.startswith("(", self.place) else self._single()
        if self.literals < SHORTEST_LITERAL:
            raise ValueError(f"must name at least {SHORTEST_LITERAL} letters or signs")
        return cost

    def _group(self) -> int:
        if not self.text.startswith("(?:", self.place):
            raise ValueError("may only group with (?:…)")
        self.place += 3
        branches, branch = 0, 1
        literals, shortest = self.literals, LONGEST
        for sign in self._until_closed():
            if sign == "|":
                branches, branch = branches + branch, 1
                shortest = min(shortest, self.literals - literals)
                self.literals = literals
                self.place += 1
            else:
                branch *= self._single()
        shortest = min(shortest, self.literals - literals)
        optional = self._optional()
        self.literals = literals + (0 if optional else shortest)
        return branches + branch + optional

    def _until_closed(self) -> Iterator[str]:
        while self.place < len(self.text):
            sign = self.text[self.place]
            if sign == ")":
                self.place += 1
                return
            yield sign
        raise ValueError("has a group that is not closed")

    def _single(self) -> int:
        """One sign, escape or class with its quantifier."""
        sign = self.text[self.place]
        if sign in "(|)":
            raise ValueError("may not have a group in a group, nor | outside of one")
        if sign in "*+{}?":
            raise ValueError("may not use * or +; write {0,40}, or ? after a sign")
        literal = sign not in ".[^$"
        if sign == "\\":
            literal = self._escape()
        elif sign == "[":
            self._class()
        else:
            self.place += 1
        least, most = self._bounds()
        self.literals += least if literal else 0
        return most - least + 1

    def _escape(self) -> bool:
        letter = self.text[self.place + 1 : self.place + 2]
        if not letter or letter not in _ESCAPES:
            raise ValueError(f"may not use \\{letter}")
        self.place += 2
        return letter not in "dDwWsSbB"

    def _class(self) -> None:
        end = self.text.find("]", self.place + 2)
        inside = self.text[self.place + 1 : end]
        if end < 0 or "[" in inside or "\\]" in inside:
            raise ValueError("has a class that is not closed, or one in another")
        self.place = end + 1

    def _optional(self) -> int:
        if self.text.startswith("?", self.place):
            self.place += 1
            self._no_more()
            return 1
        self._no_more()
        return 0

    def _bounds(self) -> tuple[int, int]:
        bounds = _BOUNDS.match(self.text, self.place)
        if bounds:
            self.place = bounds.end()
            least = int(bounds[1])
            most = int(bounds[2]) if bounds[2] else least
            if least > most or not 1 <= most <= MOST_REPEATS:
                raise ValueError(f"may repeat a sign 1 to {MOST_REPEATS} times")
            self._no_more()
            return least, most
        return (0, 1) if self._optional() else (1, 1)

    def _no_more(self) -> None:
        if self.place < len(self.text) and self.text[self.place] in "?*+{":
            raise ValueError("may have one quantifier at each place, ? or {m,n}")
