"""What a release requires of the host it runs on, and what a host lacks of it.

Rule: a requirement is a name (`python`, `system`, `machine`, `agent`, or any name the agent reports of its environment)
with clauses joined by commas, such as `>=3.11,<4` or `==linux`. Versions are compared as versions; anything else can
only be equal or different. What the host says nothing of, or what cannot be compared, is not met.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from prunella_agent import versions

NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")
CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)([0-9A-Za-z][0-9A-Za-z._+-]{0,63})")
MOST = 16
MOST_CLAUSES = 8


@dataclass(frozen=True, slots=True)
class Unmet:
    """A requirement that a host does not meet: `php >=8.2`, and what was found; empty when the host says nothing."""

    requirement: str
    found: str

    def __str__(self) -> str:
        return f"{self.requirement}, " + (
            f"this host has {self.found}" if self.found else "of which this host says nothing"
        )


def well_formed(requires: object) -> bool:
    """Whether these are requirements a release may have."""
    return (
        isinstance(requires, Mapping)
        and len(requires) <= MOST
        and all(isinstance(name, str) and NAME.fullmatch(name) for name in requires)
        and all(isinstance(text, str) and clauses(text) is not None for text in requires.values())
    )


def clauses(text: str) -> tuple[tuple[str, str], ...] | None:
    """The operators and values of a requirement; None when it is none."""
    parts = text.split(",")
    found = [match for part in parts if (match := CLAUSE.fullmatch(part.strip()))]
    if len(found) != len(parts) or len(parts) > MOST_CLAUSES:
        return None
    return tuple((match[1], match[2]) for match in found)


def facts(environment: Mapping[str, str]) -> dict[str, str]:
    """What an agent's environment says, by the names that requirements use."""
    runtime, _, version = environment.get("runtime", "").partition(" ")
    system, _, machine = environment.get("platform", "").partition(" ")
    known = {runtime: version, "system": system, "machine": machine}
    return {name: value for name, value in known.items() if name and value} | dict(environment)


def unmet(requires: Mapping[str, str], environment: Mapping[str, str]) -> tuple[Unmet, ...]:
    """The requirements that the host of this environment does not meet, by name."""
    known = facts(environment)
    lacking = []
    for name, text in sorted(requires.items()):
        found = known.get(name, "")
        if not found or not all(_holds(operator, found, wanted) for operator, wanted in clauses(text) or (("", ""),)):
            lacking.append(Unmet(f"{name} {text}", found))
    return tuple(lacking)


def sentence(release: str, lacking: tuple[Unmet, ...]) -> str:
    """What is lacking, for people."""
    return f"release {release} requires {'; '.join(map(str, lacking))}"


def _holds(operator: str, found: str, wanted: str) -> bool:
    one, other = versions.parse(found), versions.parse(wanted)
    if one is None or other is None:
        return (operator == "==" and found == wanted) or (operator == "!=" and found != wanted)
    difference = versions.order(one, other)
    return {
        ">=": difference >= 0,
        "<=": difference <= 0,
        "==": difference == 0,
        "!=": difference != 0,
        ">": difference > 0,
        "<": difference < 0,
    }.get(operator, False)
