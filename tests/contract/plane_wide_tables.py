"""Tables without a column `merchant` (or `merchants`), each with the reason why nothing in it belongs to a merchant."""

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
    "ops.audit_log": "the log as a whole: one row",
    "ops.audit_nodes": "hashes of the Merkle tree over all entries",
    "ops.audit_checkpoints": "signed sizes and roots of the log as a whole",
    "ops.audit_keys": "the keys the log was signed with",
    "ops.audit_findings": "violations of the log, for operators; they name entries, which carry their merchant",
    "ops.errands": "work of the service itself, which is done within seconds and shown to nobody",
    "ops.notification_settings": "channels and routes, which operators set for the whole plane",
    "ops.notification_cursor": "how far the timeline was read for notifications: one row",
    "ops.notification_dedup_keys": "which message a repeat is counted with, by route; shown to nobody",
    "ops.notification_throttles": "when the next message of a route may go out; shown to nobody",
    "ops.projection_backfill": "how far projections were filled from the timeline: one row",
    "ops.service_health": "the health of the plane's own services",
    "ops.task_outcomes": "tries of tasks counted by batches, and a batch holds tasks of several merchants",
    "queue.toolsets": "names of tools, which tasks of all merchants share",
    "queue.toolset_claims": "when a worker that has a set's tools last claimed",
    "queue.state_counts": "tasks and reports of the whole queue by state",
    "queue.state_count_deltas": "changes of those counts, not folded yet",
    "queue.strategies": "strategies are judged over all merchants; no text of a report is kept",
    "queue.strategy_history": "how the status of a strategy changed, over all merchants",
    "queue.classifier_counts": "counts of words learned over all merchants; no text is kept",
    "queue.requests": "a request belongs to its caller, who may act for several merchants",
    "queue.errands": "work of the service itself, which is done within seconds and shown to nobody",
    "ops.uptime_probes": "probes of the plane's own services",
}

# Tables whose owners have not said yet; empty when every schema is at its first revision.
PENDING = frozenset(
    f"{schema}.{table}"
    for schema, tables in {
        "patcher": """
            approvals attempt_history configurations errands fleets kill_switches permits policy
            policy_changes releases rollout_control rollout_history rollout_members rollout_slots rollouts
            slots staging_cache storms
        """,
    }.items()
    for table in tables.split()
)
