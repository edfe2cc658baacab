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
MAX_QUORUM: Final = 20


@dataclass(frozen=True)
class Quorum:
    """How many people, which roles must sit among them, and (when not empty) who may vote at all.

    Each seat is filled by a person of its own; whoever holds the role of any seat may vote.
    """

    size: int = 2
    seats: tuple[str, ...] = ("approver",)
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vote:
    """A person's word on a plan, named by its hash. `roles` are all they hold; `request` makes repeats harmless."""

    operator: str
    roles: frozenset[str]
    approved: bool
    plan_hash: str
    request_id: str = ""
    reason: str = ""


def check(quorum: Quorum, *, field: str = "quorum") -> None:
    """Raises Invalid, naming field, rule and remedy, for a need that nobody could meet."""
    unknown = sorted(set(quorum.seats) - ROLES)
    if unknown:
        raise invalid(f"{field}.seats", f"{unknown[0][:40]!r} is not a role", f"use {', '.join(sorted(ROLES))}")
    if not 1 <= quorum.size <= MAX_QUORUM:
        raise invalid(f"{field}.size", f"{quorum.size} is not between 1 and {MAX_QUORUM}", "ask 2 people")
    if not 1 <= len(quorum.seats) <= quorum.size:
        rule = f"{len(quorum.seats)} seats do not fit a quorum of {quorum.size}"
        raise invalid(f"{field}.seats", rule, "name at least one role, and no more than the quorum")
    named = {identity(name) for name in quorum.approvers}
    if len(named) != len(quorum.approvers) or "" in named:
        raise invalid(f"{field}.approvers", "names must differ and not be empty", "name each person once")
    if quorum.approvers and quorum.size > len(quorum.approvers):
        rule = f"a quorum of {quorum.size} is more than the {len(quorum.approvers)} people who may vote"
        raise invalid(f"{field}.size", rule, "lower it or name more people")


def is_met(quorum: Quorum, votes: Iterable[Vote]) -> bool:
    """Whether the yeses reach the quorum and each seat has a person of its own (Kuhn's augmenting paths)."""
    roles_by_operator = {
        identity(vote.operator): vote.roles for vote in votes if vote.approved and may_vote(quorum, vote)
    }
    if len(roles_by_operator) < quorum.size:
        return False
    seated: dict[str, int] = {}

    def sit(seat: int, tried: set[str]) -> bool:
        for operator, roles in roles_by_operator.items():
            if quorum.seats[seat] not in roles or operator in tried:
                continue
            tried.add(operator)
            if operator not in seated or sit(seated[operator], tried):
                seated[operator] = seat
                return True
        return False

    return all(sit(seat, set()) for seat in range(len(quorum.seats)))


def identity(operator: str) -> str:
    """One spelling per person, so that nobody counts twice by writing their name differently."""
    return unicodedata.normalize("NFKC", operator).strip().casefold()


def describe(quorum: Quorum) -> str:
    """The need in words."""
    operators = "1 person" if quorum.size == 1 else f"{quorum.size} different people"
    seats = ", ".join(f"{quorum.seats.count(role)} {role}" for role in dict.fromkeys(quorum.seats))
    return f"{operators} (at least {seats})"


def may_vote(quorum: Quorum, vote: Vote) -> bool:
    """Whether this person may vote at all."""
    named = not quorum.approvers or identity(vote.operator) in {identity(name) for name in quorum.approvers}
    return named and not vote.roles.isdisjoint(quorum.seats)


def invalid(field: str, rule: str, remedy: str) -> Invalid:
    """The error that names all three."""
    return Invalid(f"{field}: {rule}; {remedy}", reason="QUORUM_INVALID", field=field, rule=rule, remedy=remedy)
