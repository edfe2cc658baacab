"""The playbook: which remedy is known to heal which symptom on which release, as data that people write.

Rule: remedies are tried in the order of the file, but what names the package goes before what says "*", and what
names the running release before a prefix such as "1.2.*", and that before "*". A patch aims at a `release`, a
config_fix at a `configuration` (a version; without one at what the plugin should have). Remedies of the same package,
symptom and `from` that share an `order` are alternatives: among the safe ones the choice is drawn by what was learned.
A prior is either pseudo-counts, `prior = { successes = 16, failures = 0 }`, or `confidence = 0.9` with `weight = 20`
(nine in ten of twenty tries). Everything is checked when the service starts; a wrong field names file, table, field,
rule and remedy. What only a person can mend (FOR_PEOPLE, silence among it) gets no other action than notify_ops.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from libs.common.beta_posterior import Outcomes
from libs.common.toml_tables import Reader
from services.decider.decision import ACTIONS, FOR_PEOPLE, PASSIVE, SYMPTOMS, Action, Remedy
from services.decider.learning import ANY

CONFIDENT = 0.75
SIRA_CAP = 0.9
MOST_REMEDIES = 2000
RELEASE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?")
WITH_RELEASE = frozenset({Action.PATCH})
MAY_HAVE_RELEASE = WITH_RELEASE | {Action.ROLLBACK}
# These aim at the version of a configuration instead, or at the one the plugin should have.
WITH_CONFIGURATION = frozenset({Action.CONFIG_FIX})


@dataclass(frozen=True)
class Entry:
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
    remedies: tuple[Entry, ...]

    def matching(self, symptom: str, package: str, release: str) -> tuple[Entry, ...]:
        """The remedies that match, in order; the same remedy counts once, at its best place."""
        found: dict[Remedy, Entry] = {}
        for known in sorted(self.remedies, key=lambda known: known.tier):
            if known.matches(symptom, package, release):
                found.setdefault(known.remedy, known)
        return tuple(found.values())


def parse(text: str, file: str) -> Playbook:
    """The playbook in `text`; `file` is what errors call it.

    Raises Invalid (reason BAD_PLAYBOOK) with one line per mistake.
    """
    reader = Reader(file, reason="BAD_PLAYBOOK", variable="DECIDER_PLAYBOOK")
    data = reader.parse(text)
    reader.only_fields(data, {"ladder", "remedy"}, "the file")
    confident, cap = _ladder(reader, data.get("ladder", {}))
    tables = reader.tables(data, "remedy", MOST_REMEDIES, "split the fleet or drop old releases")
    remedies = [_remedy(reader, number, table) for number, table in enumerate(tables, 1)]
    reader.raise_mistakes()
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Playbook(version, text, confident, cap, tuple(known for known in remedies if known is not None))


def _ladder(reader: Reader, table: Any) -> tuple[float, float]:
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


FIELDS = {
    "package",
    "symptom",
    "from",
    "action",
    "release",
    "configuration",
    "prior",
    "confidence",
    "weight",
    "why",
    "order",
}


def _remedy(reader: Reader, number: int, table: dict[str, Any]) -> Entry | None:
    before = len(reader.mistakes)
    where = f"[[remedy]] number {number}"
    reader.only_fields(table, FIELDS, where)
    package = reader.text(table, "package", where)
    symptom = reader.choice(table, "symptom", where, SYMPTOMS)
    from_release = reader.text(table, "from", where, default=ANY)
    action = reader.choice(table, "action", where, frozenset(ACTIONS))
    release = reader.text(table, "release", where, default="")
    configuration = reader.text(table, "configuration", where, default="")
    why = reader.text(table, "why", where)
    order = reader.number(table, "order", where, _whole, "a whole number from 1 on", float(number))
    prior = reader.prior(table, where)
    _check_release(reader, where, action, release, from_release)
    _check_configuration(reader, where, action, configuration)
    if symptom in FOR_PEOPLE and action and action not in PASSIVE:
        reader.wrong(where, "action", f"must be notify_ops for {symptom}", FOR_PEOPLE[symptom])
    if len(reader.mistakes) > before:
        return None
    return Entry(package, symptom, from_release, Remedy(action, release or configuration), prior, why, int(order))


def _whole(value: float) -> bool:
    return value >= 1 and value == int(value)


def _check_release(reader: Reader, where: str, action: str, release: str, from_release: str) -> None:
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


def _check_configuration(reader: Reader, where: str, action: str, configuration: str) -> None:
    if configuration and action and action not in WITH_CONFIGURATION:
        reader.wrong(where, "configuration", f"means nothing for {action}", "leave it out")
    elif configuration and not RELEASE.fullmatch(configuration):
        reader.wrong(where, "configuration", "must be a version", 'write letters, digits and ".", "+", "-" only')
