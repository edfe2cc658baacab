"""Tables without a column `merchant`, each with the reason why nothing in it belongs to a merchant."""

from __future__ import annotations

PLANE_WIDE = {
    "bus.inbox": "which consumer has handled which fact: ids only, and the fact itself carries its merchant",
    "bus.consumer_watermarks": "how far a consumer has come: one row for each service",
    "bus.delivery_failures": "attempts of a consumer at a fact, for operators; the fact itself carries its merchant",
    "bus.dead_letters": "facts that a consumer gave up, for operators; the fact itself carries its merchant",
    "decider.outcomes": "outcomes of remedies counted over all merchants: a remedy is the same for each of them",
    "ingest.replica_uptime": "since when each replica of ingest runs",
    "ingest.storms": "trouble of a package that many merchants share; counts only, no plugin is named",
    "decider.errands": "work of the service itself, which is done within seconds and shown to nobody",
}

# Tables whose owners have not said yet; empty when every schema is at its first revision.
PENDING = frozenset(
    f"{schema}.{table}"
    for schema, tables in {
        "ops": """
            assignments audit_checkpoints audit_entries audit_findings audit_keys audit_log audit_nodes
            comments deliveries errands labels left_fleet notification_cursor notification_keys
            notification_paces notification_settings notifications past probes service_health spans
            task_ends timeline
        """,
        "patcher": """
            approvals attempt_history configurations errands fleets kill_switches permits policy
            policy_changes releases rollout_control rollout_history rollout_members rollout_slots rollouts
            slots staging_cache storms
        """,
        "queue": """
            asked contents count_deltas counts errands history lessons proposals requests strategies
            strategy_history toolsets watches
        """,
    }.items()
    for table in tables.split()
)
