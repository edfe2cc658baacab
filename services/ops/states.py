"""Which state of an attempt or an incident a fact speaks of.

Rule: facts come twice and in any order, so a state is a register that the latest fact wins: by its time, and between
facts of one moment by how far along in a healing they stand. What only one fact can say (when an incident was opened)
is kept as the least of what was said. Either way any order and any number of repeats ends in the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Fact → (state of the attempt, how far along it stands).
ATTEMPT: Final[Mapping[str, tuple[str, int]]] = {
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
# What takes the attempt back is said of these.
BACK: Final = frozenset({"rolled_back", "rollback_failed"})
# The agent switched, or may have; only then there is something to undo.
SWITCHED: Final = frozenset({"applying", "probation", "committing", "success", "unconfirmed"})

INCIDENT: Final = ("open", "in_progress", "escalated", "mitigated", "closed")
SEVERITIES: Final = ("low", "medium", "high", "critical")
PEOPLE: Final = "operators/"

# What people do to the plane or its work; a word to each other (a comment, an acknowledgement) is no intervention.
INTERVENTIONS: Final = frozenset(
    {
        "approval_ended",
        "approval_given",
        "attempt_cancelled",
        "attempt_created",
        "attempt_rolling_back",
        "incident_closed",
        "incident_escalated",
        "kill_switch_engaged",
        "kill_switch_released",
        "plugin_retired",
        "policy_changed",
        "proposal_decided",
        "report_closed",
        "rollout_aborted",
        "rollout_paused",
        "rollout_promoted",
        "rollout_resumed",
        "storm_ended",
        "strategy_changed",
        "task_cancelled",
        "task_retried",
        "tasks_recovered",
    }
)


def by_hand(fact: str, actor: str) -> bool:
    """Whether a fact tells of a person who took a hand in it."""
    return actor.startswith(PEOPLE) and fact in INTERVENTIONS
