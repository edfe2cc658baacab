"""Headlines: every fact in one line that a person understands without knowing the protos.

Rule: a headline says what happened to whom, in plain words, with the figures that decided it. Every fact of
`events.proto` has one; a fact of a newer build falls back to its reason, so nothing is ever left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.ops.decoded_fact import DecodedFact
from services.ops.headlines import errors, governance, healing, notifications
from services.ops.text import shortened

LONGEST = 300
HEADLINES: Mapping[str, Callable[[DecodedFact], str]] = {
    **healing.HEADLINES,
    **errors.HEADLINES,
    **governance.HEADLINES,
    **notifications.HEADLINES,
}


def headline(fact: DecodedFact) -> str:
    """One line for people, at most 300 characters."""
    write = HEADLINES.get(fact.name)
    return shortened(write(fact) if write else f"{fact.name.replace('_', ' ')} · {fact.reason}", LONGEST)
