"""What people note about incidents: who takes care of one, and comments.

Rule: a note belongs to an incident that was told of; a person is named as elsewhere; giving an incident to who has it
already is no news. A repeated request is the first one again, unless it says something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.common import names
from libs.common.errors import Invalid
from libs.common.text import clean_text

LONGEST = 4000
LONGEST_REQUEST = 128
COLLECTION = "operators/"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One time an incident was given to `assignee` (operators/{operator}, or empty for nobody)."""

    id: str
    incident: str
    assignee: str
    actor: str
    request: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Comment:
    """What a person said."""

    id: str
    incident: str
    text: str
    actor: str
    request: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Notes:
    """Everything noted about one incident; comments oldest first."""

    incident: str
    assigned: Assignment | None
    comments: tuple[Comment, ...]


def assignee(word: str) -> str:
    """The person a word names. Raises Invalid."""
    bare = word.strip().removeprefix(COLLECTION)
    if bare and not names.is_id(bare):
        raise Invalid(
            f"assignee must be operators/{{operator}} or a bare name, not {word[:80]!r}",
            reason="BAD_ASSIGNEE",
            field="assignee",
        )
    return names.operator(bare) if bare else ""


def text(given: str) -> str:
    """What is kept of a comment. Raises Invalid."""
    kept = clean_text(given).strip()
    if not kept or len(kept) > LONGEST:
        raise Invalid(f"text must have 1 to {LONGEST} characters, it has {len(kept)}", reason="BAD_TEXT", field="text")
    return kept


def reason(given: str) -> str:
    """Why something is done. Raises Invalid when nobody says."""
    kept = clean_text(given).strip()
    if not kept or len(kept) > LONGEST:
        raise Invalid(f"reason must say why, in up to {LONGEST} characters", reason="REASON_MISSING", field="reason")
    return kept


def request(given: str) -> str:
    """The id of a request. Raises Invalid."""
    if len(given) > LONGEST_REQUEST or not given.isprintable():
        raise Invalid(
            f"request_id must be printable and at most {LONGEST_REQUEST} characters; a UUID is best",
            reason="BAD_REQUEST_ID",
            field="request_id",
        )
    return given
