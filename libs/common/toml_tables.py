"""Data files that people write (TOML): every mistake in them is collected and named.

Rule: a mistake is one line with file, table, field, rule and remedy; a field that is not known is one too. Nothing
stops at the first mistake, and a value that is wrong gives a harmless one of its kind so that reading goes on.
"""

import difflib
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from libs.common.beta_posterior import Outcomes
from libs.common.errors import Invalid

LARGEST_PRIOR = 10_000.0
LONGEST_TEXT = 500


def read_text(path: Path, *, reason: str, variable: str) -> str:
    """The text of a file that the setting `variable` names. Raises Invalid with `reason` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{variable}: {path} cannot be read ({error}); name a readable TOML file"
        raise Invalid(message, reason=reason, field=variable, file=str(path)) from error


class Reader:
    """Takes fields out of tables and collects every mistake; `variable` is the setting that names the file."""

    def __init__(self, file: str, *, reason: str, variable: str) -> None:
        self.file = file
        self.mistakes: list[str] = []
        self._reason = reason
        self._variable = variable

    def parse(self, text: str) -> dict[str, Any]:
        """The tables in a text. Raises Invalid when it is not TOML."""
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self.mistakes = [f"{self.file}: this is not TOML: {error}; mend the line it names"]
            raise self.invalid() from error

    def raise_mistakes(self) -> None:
        """Raises Invalid, with one line for each mistake, when there was any."""
        if self.mistakes:
            raise self.invalid()

    def invalid(self) -> Invalid:
        """All mistakes as one problem."""
        return Invalid("\n".join(self.mistakes), reason=self._reason, field=self._variable, file=self.file)

    def tables(self, data: dict[str, Any], name: str, most: int, otherwise: str) -> list[dict[str, Any]]:
        """The tables [[name]], at most `most`; `otherwise` is what to do with more."""
        found = data.get(name, [])
        if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
            self.wrong("the file", name, "must be a list of tables", f"write [[{name}]] above each one")
            return []
        if len(found) > most:
            self.wrong("the file", name, f"may hold {most} tables", otherwise)
            return []
        return found

    def wrong(self, table: str, field: str, rule: str, remedy: str) -> None:
        """Notes a mistake: where, which rule, and what to write."""
        self.mistakes.append(f"{self.file}: {table}, field `{field}` {rule}; {remedy}")

    def only_fields(self, table: dict[str, Any], known: set[str], where: str) -> None:
        """Every field must be known; a near miss is named."""
        for field in sorted(set(table) - known):
            near = difflib.get_close_matches(field, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"the fields are {', '.join(sorted(known))}"
            self.wrong(where, field, "is not known", hint)

    def text(
        self, table: dict[str, Any], field: str, where: str, *, default: str | None = None, longest: int = LONGEST_TEXT
    ) -> str:
        """A text of at most `longest` characters; empty only where that is the default."""
        value = table.get(field, default)
        if isinstance(value, str) and len(value) <= longest and (value or default == ""):
            return value
        self.wrong(where, field, f"must be a text of 1 to {longest} characters", f'write {field} = "…"')
        return ""

    def choice(self, table: dict[str, Any], field: str, where: str, allowed: frozenset[str]) -> str:
        """One of the allowed words."""
        value = table.get(field)
        if isinstance(value, str) and value in allowed:
            return value
        self.wrong(where, field, f"must be one of {', '.join(sorted(allowed))}", f"it was {value!r}")
        return ""

    def number(
        self, table: dict[str, Any], field: str, where: str, fits: Callable[[float], bool], rule: str, default: float
    ) -> float:
        """A finite number that fits the rule."""
        value = table.get(field, default)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and fits(value):
            return float(value)
        self.wrong(where, field, f"must be {rule}", f"it was {value!r}")
        return default

    def prior(self, table: dict[str, Any], where: str) -> Outcomes:
        """A prior's pseudo-counts: `prior = { successes, failures }`, or `confidence` (a rate) of `weight` tries."""
        if "prior" in table and ("confidence" in table or "weight" in table):
            self.wrong(where, "prior", "excludes confidence and weight", "keep one of the two ways")
            return Outcomes()
        if "confidence" in table or "weight" in table:
            rate = self.number(table, "confidence", where, lambda v: 0 <= v <= 1, "a number from 0 to 1", math.nan)
            weight = self.number(
                table, "weight", where, lambda v: 0 < v <= LARGEST_PRIOR, "above 0 and at most 10000", math.nan
            )
            return Outcomes(rate * weight, (1 - rate) * weight)
        prior = table.get("prior")
        if not isinstance(prior, dict):
            self.wrong(where, "prior", "is needed", "write prior = { successes = 16, failures = 0 }")
            return Outcomes()
        inner = f"{where}, prior"
        self.only_fields(prior, {"successes", "failures"}, inner)

        def fits(value: float) -> bool:
            return 0 <= value <= LARGEST_PRIOR

        rule = "a number from 0 to 10000"
        return Outcomes(
            self.number(prior, "successes", inner, fits, rule, math.nan),
            self.number(prior, "failures", inner, fits, rule, 0.0),
        )
