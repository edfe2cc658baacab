"""Annotations of incidents: who is assigned to one, and comments.

Rule: an annotation belongs to an incident on the timeline; assigning an incident to its assignee changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.common import names
from libs.common.errors import Invalid
from libs.common.text import clean_text

LONGEST = 4000
COLLECTION = "operators/"


@dataclass(frozen=True, slots=True)
class Assignment:
    """An incident was assigned to `assignee` (operators/{operator}, or empty for nobody)."""

    id: str
    incident: str
    merchant: str
    assignee: str
    actor: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Comment:
    """What a person wrote about an incident."""

    id: str
    incident: str
    merchant: str
    text: str
    actor: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Annotations:
    """Everything annotated about one incident; comments oldest first."""

    incident: str
    assignment: Assignment | None
    comments: tuple[Comment, ...]


def assignee(name: str) -> str:
    """The operator of a name or bare id; empty for nobody. Raises Invalid."""
    bare = name.strip().removeprefix(COLLECTION)
    if bare and not names.is_id(bare):
        raise Invalid(
            f"assignee must be operators/{{operator}} or a bare name, not {name[:80]!r}",
            reason="BAD_ASSIGNEE",
            field="assignee",
        )
    return names.operator(bare) if bare else ""


def text(typed: str) -> str:
    """What is stored of a comment. Raises Invalid."""
    clean = clean_text(typed).strip()
    if not 0 < len(clean) <= LONGEST:
        raise Invalid(f"text must have 1 to {LONGEST} characters, it has {len(clean)}", reason="BAD_TEXT", field="text")
    return clean


def reason(typed: str) -> str:
    """Why an incident is assigned. Raises Invalid when it is not said."""
    clean = clean_text(typed).strip()
    if not 0 < len(clean) <= LONGEST:
        raise Invalid(f"reason must say why, in up to {LONGEST} characters", reason="REASON_MISSING", field="reason")
    return clean
