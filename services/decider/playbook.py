"""The playbook: which remedy is known to heal which symptom on which release, as data that people write.

Rule: remedies are tried in the order of the file, but what names the package goes before what says "*", and what
names the running release before a prefix such as "1.2.*", and that before "*". Remedies of the same package, symptom
and `from` that share an `order` are alternatives: among the safe ones the choice is drawn by what was learned. A
prior is either imagined tries, `prior = { successes = 16, failures = 0 }`, or `confidence = 0.9` with `weight = 20`
(nine in ten of twenty tries). Everything is checked when the service starts; a wrong field names file, table, field,
rule and remedy. Silence (heartbeat_missed) always goes to a person, so no other action may be written for it.
"""

import difflib
import hashlib
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from libs.common.errors import Invalid
from services.decider.decision import ACTIONS, PASSIVE, SILENCE, SYMPTOMS, Action, Remedy
from services.decider.learning import ANY, Outcomes

CONFIDENT = 0.75
SIRA_CAP = 0.9
LARGEST_PRIOR = 10_000.0
MOST_REMEDIES = 2000
LONGEST_TEXT = 500
RELEASE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?")
WITH_RELEASE = frozenset({Action.PATCH})
MAY_HAVE_RELEASE = WITH_RELEASE | {Action.ROLLBACK}


@dataclass(frozen=True)
class Known:
    """One remedy of the playbook."""

    package: str
    symptom: str
    from_release: str
    remedy: Remedy
    prior: Outcomes
    why: str
    order: int

    def matches(self, symptom: str, package: str, release: str) -> bool:
        """Whether it is meant for this symptom on this release of this package."""
        if symptom != self.symptom or self.package not in (ANY, package):
            return False
        if self.from_release.endswith(".*"):
            return release.startswith(self.from_release[:-1])
        return self.from_release in (ANY, release)

    @property
    def tier(self) -> tuple[int, int, int]:
        """Its place: named package first, then the closest `from`, then the order."""
        closeness = 2 if self.from_release == ANY else int(self.from_release.endswith(".*"))
        return (int(self.package == ANY), closeness, self.order)


@dataclass(frozen=True)
class Playbook:
    """A playbook that was checked. `version` is a digest of its text."""

    version: str
    text: str
    confident: float
    sira_cap: float
    remedies: tuple[Known, ...]

    def matching(self, symptom: str, package: str, release: str) -> tuple[Known, ...]:
        """The remedies for a situation, in order; the same remedy counts once, at its best place."""
        found: dict[Remedy, Known] = {}
        for known in sorted(self.remedies, key=lambda known: known.tier):
            if known.matches(symptom, package, release):
                found.setdefault(known.remedy, known)
        return tuple(found.values())


def parse(text: str, file: str) -> Playbook:
    """The playbook in `text`; `file` is what errors call it.

    Raises Invalid (reason BAD_PLAYBOOK) with one line per mistake.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(file, [f"{file}: this is not TOML: {error}; mend the line it names"]) from error
    reader = _Reader(file)
    reader.only_fields(data, {"ladder", "remedy"}, "the file")
    confident, cap = _ladder(reader, data.get("ladder", {}))
    tables = data.get("remedy", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        reader.wrong("the file", "remedy", "must be a list of tables", "write [[remedy]] above each one")
        tables = []
    if len(tables) > MOST_REMEDIES:
        reader.wrong("the file", "remedy", f"may hold {MOST_REMEDIES} tables", "split the fleet or drop old releases")
        tables = []
    remedies = [_remedy(reader, number, table) for number, table in enumerate(tables, 1)]
    if reader.mistakes:
        raise _invalid(file, reader.mistakes)
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Playbook(version, text, confident, cap, tuple(known for known in remedies if known is not None))


def _invalid(file: str, mistakes: list[str]) -> Invalid:
    return Invalid("\n".join(mistakes), reason="BAD_PLAYBOOK", field="DECIDER_PLAYBOOK", file=file)


class _Reader:
    """Takes fields out of tables and collects every mistake instead of stopping at the first."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.mistakes: list[str] = []

    def wrong(self, table: str, field: str, rule: str, remedy: str) -> None:
        """Notes a mistake: where, which rule, and what to write."""
        self.mistakes.append(f"{self.file}: {table}, field `{field}` {rule}; {remedy}")

    def only_fields(self, table: dict[str, Any], known: set[str], where: str) -> None:
        """Every field must be known; a near miss is named."""
        for field in sorted(set(table) - known):
            near = difflib.get_close_matches(field, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"the fields are {', '.join(sorted(known))}"
            self.wrong(where, field, "is not known", hint)

    def text(self, table: dict[str, Any], field: str, where: str, *, default: str | None = None) -> str:
        """A text of at most 500 characters."""
        value = table.get(field, default)
        if isinstance(value, str) and len(value) <= LONGEST_TEXT and (value or default == ""):
            return value
        self.wrong(where, field, "must be a text of 1 to 500 characters", f'write {field} = "…"')
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


def _ladder(reader: _Reader, table: Any) -> tuple[float, float]:
    where = "[ladder]"
    if not isinstance(table, dict):
        reader.wrong("the file", "ladder", "must be a table", "write [ladder]")
        return CONFIDENT, SIRA_CAP
    reader.only_fields(table, {"confident", "sira_cap"}, where)

    def within(value: float) -> bool:
        return 0 < value < 1

    rule = "a number above 0 and below 1"
    return (
        reader.number(table, "confident", where, within, rule, CONFIDENT),
        reader.number(table, "sira_cap", where, within, rule, SIRA_CAP),
    )


FIELDS = {"package", "symptom", "from", "action", "release", "prior", "confidence", "weight", "why", "order"}


def _remedy(reader: _Reader, number: int, table: dict[str, Any]) -> Known | None:
    before = len(reader.mistakes)
    where = f"[[remedy]] number {number}"
    reader.only_fields(table, FIELDS, where)
    package = reader.text(table, "package", where)
    symptom = reader.choice(table, "symptom", where, SYMPTOMS)
    from_release = reader.text(table, "from", where, default=ANY)
    action = reader.choice(table, "action", where, frozenset(ACTIONS))
    release = reader.text(table, "release", where, default="")
    why = reader.text(table, "why", where)
    order = reader.number(table, "order", where, _whole, "a whole number from 1 on", float(number))
    prior = _prior(reader, table, where)
    _check_release(reader, where, action, release, from_release)
    if symptom == SILENCE and action and action not in PASSIVE:
        reader.wrong(where, "action", "must be notify_ops for heartbeat_missed", "silence always goes to a person")
    if len(reader.mistakes) > before:
        return None
    return Known(package, symptom, from_release, Remedy(action, release), prior, why, int(order))


def _whole(value: float) -> bool:
    return value >= 1 and value == int(value)


def _check_release(reader: _Reader, where: str, action: str, release: str, from_release: str) -> None:
    if action in WITH_RELEASE and not release:
        reader.wrong(where, "release", f"is needed for {action}", 'name the version it aims at, such as "1.2.3"')
    elif release and action and action not in MAY_HAVE_RELEASE:
        reader.wrong(where, "release", f"means nothing for {action}", "leave it out")
    elif release and not RELEASE.fullmatch(release):
        reader.wrong(where, "release", "must be a version", 'write letters, digits and ".", "+", "-" only')
    elif release and release == from_release:
        reader.wrong(where, "release", "must differ from `from`", "a release does not mend itself")
    plain = from_release.removesuffix(".*") if from_release != ANY else "0"
    if from_release and not RELEASE.fullmatch(plain):
        reader.wrong(where, "from", 'must be a version, a prefix such as "1.2.*", or "*"', f"it was {from_release!r}")


def _prior(reader: _Reader, table: dict[str, Any], where: str) -> Outcomes:
    if "prior" in table and ("confidence" in table or "weight" in table):
        reader.wrong(where, "prior", "excludes confidence and weight", "keep one of the two ways")
        return Outcomes()
    if "confidence" in table or "weight" in table:
        rate = reader.number(table, "confidence", where, lambda v: 0 <= v <= 1, "a number from 0 to 1", math.nan)
        weight = reader.number(
            table, "weight", where, lambda v: 0 < v <= LARGEST_PRIOR, "above 0 and at most 10000", math.nan
        )
        return Outcomes(rate * weight, (1 - rate) * weight)
    prior = table.get("prior")
    if not isinstance(prior, dict):
        reader.wrong(where, "prior", "is needed", "write prior = { successes = 16, failures = 0 }")
        return Outcomes()
    inner = f"{where}, prior"
    reader.only_fields(prior, {"successes", "failures"}, inner)

    def fits(value: float) -> bool:
        return 0 <= value <= LARGEST_PRIOR

    rule = "a number from 0 to 10000"
    return Outcomes(
        reader.number(prior, "successes", inner, fits, rule, math.nan),
        reader.number(prior, "failures", inner, fits, rule, 0.0),
    )
