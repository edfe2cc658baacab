"""Manual interventions: what a person does to the plane or its work.

Rule: a comment or an acknowledgement is none; it changes nothing.
"""

from __future__ import annotations

from typing import Final

from services.ops.decoded_fact import DecodedFact

OPERATORS: Final = "operators/"
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
        "quarantine_released",
        "report_closed",
        "reports_merged",
        "reports_split",
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


def is_intervention(fact: DecodedFact) -> bool:
    """Whether a fact reports what a person did."""
    return fact.actor.startswith(OPERATORS) and fact.name in INTERVENTIONS
