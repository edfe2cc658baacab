"""The states of an attempt, which of them a fact reports, and how they are put for people.

Rule: facts come twice and in any order, so a state is a register that the latest fact wins: by its time, and between
facts of one time by how far along in a healing they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.ops.decoded_fact import DecodedFact

# Fact → (state of the attempt, how far along it stands).
STATE_OF: Final[Mapping[str, tuple[str, int]]] = {
    "attempt_created": ("pending", 1),
    "attempt_staged": ("staged", 2),
    "approval_requested": ("awaiting_approval", 3),
    "approval_ended": ("staged", 4),
    "attempt_held": ("staged", 5),
    "apply_authorized": ("applying", 6),
    "apply_denied": ("staged", 6),
    "attempt_applied": ("probation", 7),
    "attempt_committing": ("committing", 8),
    "attempt_rolling_back": ("rolling_back", 9),
    "attempt_unconfirmed": ("unconfirmed", 10),
    "attempt_refused": ("refused", 11),
    "attempt_cancelled": ("cancelled", 11),
    "attempt_failed": ("failed", 12),
    "attempt_succeeded": ("success", 13),
    "attempt_rolled_back": ("rolled_back", 14),
    "attempt_rollback_failed": ("rollback_failed", 14),
}
FINAL: Final = frozenset({"success", "failed", "rolled_back", "rollback_failed", "refused", "cancelled"})
# Something was tried to its end; refused and cancelled attempts tried nothing.
TRIED: Final = frozenset({"success", "failed", "rolled_back", "rollback_failed"})
# The agent switched, or may have; only then there is something to roll back.
SWITCHED: Final = frozenset({"applying", "probation", "committing", "success", "unconfirmed"})
DESCRIPTIONS: Final = {
    "awaiting_approval": "waiting for approval",
    "applying": "being applied",
    "probation": "in probation",
    "committing": "being committed",
    "rolling_back": "being taken back",
}


def remedy(action: str, source: str, target: str) -> str:
    """What an attempt does, such as `patch 1.2.0 → 1.2.3`."""
    action = action or "a remedy"
    if not target or target == source:
        return action
    return f"{action} {source} → {target}" if source else f"{action} → {target}"


def progress(state: str, held_by: str) -> str:
    """Where an attempt is, such as `in probation` or `staged, waiting for STORM`."""
    words = DESCRIPTIONS.get(state, state.replace("_", " "))
    return f"{words}, waiting for {held_by}" if held_by else words


def staging(fact: DecodedFact) -> str:
    """How staging went, such as `4/4 tests passed in 2.1 s`."""
    tests = f"{int(fact.number('tests_passed'))}/{int(fact.number('tests_run'))} tests passed"
    if not fact.fields.get("passed"):
        failures = "; ".join(str(text) for text in fact.fields.get("failures") or ()) or fact.reason
        return f"refused, {tests}: {failures}"
    return f"{tests} {'earlier' if fact.fields.get('cached') else f'''in {fact.number('duration'):.1f} s'''}"


def verdict(found: Mapping[str, Any]) -> str:
    """A verdict of probation with its error rates and why, such as `pass: error rate 12% → 0% over 5 beats`."""
    before, after = found.get("error_rate_before") or 0.0, found.get("error_rate_after") or 0.0
    rates = f"{found.get('result') or 'unknown'}: error rate {before:.0%} → {after:.0%}"
    return " · ".join(filter(None, (f"{rates} over {found.get('beats') or 0} beats", found.get("explanation"))))
