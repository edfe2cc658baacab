"""Whose approval a plan needs, and whether these votes are enough.

Rule: `quorum` different people, each seat filled by a person of its own. One spelling per person, so that nobody counts
twice. A need that nobody could meet is refused with field, rule and remedy.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from libs.common.errors import Invalid

ROLES: Final = frozenset({"operator", "approver", "admin"})
MOST: Final = 20


@dataclass(frozen=True)
class Need:
    """How many people, which roles must sit among them, and (when not empty) who may vote at all.

    Each seat is filled by a person of its own; whoever holds the role of any seat may vote.
    """

    quorum: int = 2
    seats: tuple[str, ...] = ("approver",)
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vote:
    """A person's word on a plan, named by its hash. `roles` are all they hold; `request` makes repeats harmless."""

    person: str
    roles: frozenset[str]
    yes: bool
    plan: str
    request: str = ""
    reason: str = ""


def check(need: Need, *, field: str = "need") -> None:
    """Raises Invalid, naming field, rule and remedy, for a need that nobody could meet."""
    unknown = sorted(set(need.seats) - ROLES)
    if unknown:
        raise invalid(f"{field}.seats", f"{unknown[0][:40]!r} is not a role", f"use {', '.join(sorted(ROLES))}")
    if not 1 <= need.quorum <= MOST:
        raise invalid(f"{field}.quorum", f"{need.quorum} is not between 1 and {MOST}", "ask 2 people")
    if not 1 <= len(need.seats) <= need.quorum:
        rule = f"{len(need.seats)} seats do not fit a quorum of {need.quorum}"
        raise invalid(f"{field}.seats", rule, "name at least one role, and no more than the quorum")
    if len(people := {identity(name) for name in need.approvers}) != len(need.approvers) or "" in people:
        raise invalid(f"{field}.approvers", "names must differ and not be empty", "name each person once")
    if need.approvers and need.quorum > len(need.approvers):
        rule = f"a quorum of {need.quorum} is more than the {len(need.approvers)} people who may vote"
        raise invalid(f"{field}.quorum", rule, "lower it or name more people")


def enough(need: Need, votes: Iterable[Vote]) -> bool:
    """Whether the yeses reach the quorum and each seat has a person of its own (Kuhn's augmenting paths)."""
    people = {identity(vote.person): vote.roles for vote in votes if vote.yes and may(need, vote)}
    if len(people) < need.quorum:
        return False
    seated: dict[str, int] = {}

    def sit(seat: int, tried: set[str]) -> bool:
        for person, roles in people.items():
            if need.seats[seat] not in roles or person in tried:
                continue
            tried.add(person)
            if person not in seated or sit(seated[person], tried):
                seated[person] = seat
                return True
        return False

    return all(sit(seat, set()) for seat in range(len(need.seats)))


def identity(person: str) -> str:
    """One spelling per person, so that nobody counts twice by writing their name differently."""
    return unicodedata.normalize("NFKC", person).strip().casefold()


def asked_for(need: Need) -> str:
    """The need in words."""
    people = "1 person" if need.quorum == 1 else f"{need.quorum} different people"
    seats = ", ".join(f"{need.seats.count(role)} {role}" for role in dict.fromkeys(need.seats))
    return f"{people} (at least {seats})"


def may(need: Need, vote: Vote) -> bool:
    """Whether this person may vote at all."""
    named = not need.approvers or identity(vote.person) in {identity(name) for name in need.approvers}
    return named and not vote.roles.isdisjoint(need.seats)


def invalid(field: str, rule: str, remedy: str) -> Invalid:
    """The error that names all three."""
    return Invalid(f"{field}: {rule}; {remedy}", reason="APPROVAL_NEED", field=field, rule=rule, remedy=remedy)
