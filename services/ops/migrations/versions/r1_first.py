"""The first revision: timeline and spans, the audit log, notifications, projections and annotations.

A timeline row gets its position after its commit, from one writer at a time (services/ops/store/timeline.py).

What grows is partitioned by the time in its key. The position of a timeline row is not unique by index, since such an
index would have to contain the partition key: it is unique because one writer at a time gives positions, under a lock.
Entries, nodes and checkpoints of the audit log stay for ever, so they are not partitioned; a trigger refuses to change
or remove them. It guards against mistakes; against whoever owns the database only the signatures help.

`merchant` is empty where a row concerns the plane itself. A message may cover several merchants: `merchants` lists all
of them, the empty one too. Projections keep the least or the most of what facts say, or let the latest fact win.
"""

import secrets

from alembic import op

from libs.common.errands import errands_table_sql
from libs.common.idempotency import requests_table_sql
from libs.common.partitions import partition_statements
from services.ops.migrations.notification_tables import NOTIFICATIONS

revision = "r1"
down_revision = None
branch_labels = None
depends_on = None

TIMELINE = """
CREATE TABLE ops.timeline (
    event_id uuid PRIMARY KEY,
    position bigint,
    time timestamptz NOT NULL,
    fact text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    incident text NOT NULL,
    trace_id text NOT NULL,
    payload bytea NOT NULL
) PARTITION BY RANGE (event_id);
CREATE INDEX timeline_unplaced ON ops.timeline (time) WHERE position IS NULL;
CREATE INDEX timeline_position ON ops.timeline (position);
CREATE INDEX timeline_plugin ON ops.timeline (plugin, position DESC) WHERE plugin <> '';
CREATE INDEX timeline_incident ON ops.timeline (incident, position DESC) WHERE incident <> '';
CREATE INDEX timeline_fact ON ops.timeline (fact, position DESC);
CREATE TABLE ops.labels (
    plugin text PRIMARY KEY,
    merchant text NOT NULL,
    label text NOT NULL
);
CREATE TABLE ops.spans (
    trace_id text NOT NULL,
    span_id text NOT NULL,
    parent_id text NOT NULL,
    merchant text NOT NULL,
    service text NOT NULL,
    name text NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    error text NOT NULL,
    attributes jsonb NOT NULL,
    links text[] NOT NULL,
    receive_time timestamptz NOT NULL,
    PRIMARY KEY (trace_id, span_id, start_time)
) PARTITION BY RANGE (start_time);
CREATE INDEX spans_received ON ops.spans (receive_time);
CREATE INDEX spans_links ON ops.spans USING gin (links) WHERE links <> '{}'
"""
AUDIT = """
CREATE TABLE ops.audit_log (
    id smallint PRIMARY KEY CHECK (id = 1),
    origin text NOT NULL,
    size bigint NOT NULL,
    peaks bytea NOT NULL,
    cursor_time timestamptz NOT NULL,
    compared_index bigint NOT NULL,
    scan_time timestamptz NOT NULL,
    scan_event_id uuid NOT NULL
);
CREATE TABLE ops.audit_entries (
    index bigint PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    time timestamptz NOT NULL,
    fact text NOT NULL,
    actor text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    incident text NOT NULL,
    leaf_hash bytea NOT NULL,
    entry bytea NOT NULL
);
CREATE INDEX audit_entries_time ON ops.audit_entries (time);
CREATE INDEX audit_entries_fact ON ops.audit_entries (fact, index);
CREATE INDEX audit_entries_actor ON ops.audit_entries (actor, index);
CREATE INDEX audit_entries_plugin ON ops.audit_entries (plugin, index) WHERE plugin <> '';
CREATE INDEX audit_entries_incident ON ops.audit_entries (incident, index) WHERE incident <> '';
CREATE TABLE ops.audit_nodes (
    level integer NOT NULL,
    index bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (level, index)
);
CREATE TABLE ops.audit_checkpoints (
    size bigint PRIMARY KEY,
    root bytea NOT NULL,
    note text NOT NULL,
    key text NOT NULL,
    time timestamptz NOT NULL
);
CREATE TABLE ops.audit_keys (
    key text PRIMARY KEY,
    first_use_time timestamptz NOT NULL
);
CREATE TABLE ops.audit_findings (
    index bigint NOT NULL,
    event_id text NOT NULL,
    detail text NOT NULL,
    time timestamptz NOT NULL,
    PRIMARY KEY (index, event_id, detail)
)
"""
REFUSE = """
CREATE FUNCTION ops.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was logged stays: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = '23001';
END $$
"""
# The origin is the log's name for ever.
LOG = """
INSERT INTO ops.audit_log (id, origin, size, peaks, cursor_time, compared_index, scan_time, scan_event_id)
VALUES (1, '{origin}', 0, '', 'epoch', 0, 'epoch', '00000000-0000-0000-0000-000000000000')
"""
IMMUTABLE = ("audit_entries", "audit_nodes", "audit_checkpoints")
# A message is `queued` while facts may still join it; there is at most one such for a route and urgency.
PROJECTIONS = """
CREATE TABLE ops.incidents (
    incident text PRIMARY KEY,
    plugin text NOT NULL,
    merchant text NOT NULL,
    package text NOT NULL,
    release text NOT NULL,
    type text NOT NULL,
    severity smallint NOT NULL,
    evidence text NOT NULL,
    rounds integer NOT NULL,
    first_fact_time timestamptz NOT NULL,
    first_bad_beat_time timestamptz,
    open_time timestamptz,
    decide_time timestamptz,
    apply_time timestamptz,
    escalate_time timestamptz,
    mitigate_time timestamptz,
    close_time timestamptz,
    reopen_time timestamptz,
    reopened integer NOT NULL DEFAULT 0,
    flapping boolean NOT NULL DEFAULT false,
    healed_by text NOT NULL,
    resolution text NOT NULL,
    manual boolean NOT NULL,
    start_time timestamptz GENERATED ALWAYS AS (coalesce(open_time, first_fact_time)) STORED,
    end_time timestamptz GENERATED ALWAYS AS (
        CASE WHEN reopen_time > greatest(mitigate_time, close_time) THEN NULL
             ELSE greatest(mitigate_time, close_time) END) STORED,
    state text GENERATED ALWAYS AS (
        CASE WHEN reopen_time > greatest(mitigate_time, close_time) OR coalesce(mitigate_time, close_time) IS NULL
             THEN CASE WHEN flapping THEN 'flapping' WHEN escalate_time IS NOT NULL THEN 'escalated' ELSE 'open' END
             WHEN mitigate_time = greatest(mitigate_time, close_time) THEN 'mitigated' ELSE 'closed' END) STORED
);
CREATE INDEX incidents_start ON ops.incidents (start_time DESC, incident DESC);
CREATE INDEX incidents_plugin ON ops.incidents (plugin, start_time DESC, incident DESC);
CREATE INDEX incidents_merchant ON ops.incidents (merchant, start_time DESC, incident DESC);
CREATE INDEX incidents_end ON ops.incidents (end_time) WHERE end_time IS NOT NULL;
CREATE INDEX incidents_reopen ON ops.incidents (reopen_time) WHERE reopen_time IS NOT NULL;
CREATE INDEX incidents_active ON ops.incidents (severity DESC, start_time DESC) WHERE end_time IS NULL;
CREATE TABLE ops.attempts (
    attempt text PRIMARY KEY,
    incident text NOT NULL,
    decision text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    action text NOT NULL,
    from_release text NOT NULL,
    to_release text NOT NULL,
    by_operator boolean NOT NULL,
    create_time timestamptz,
    apply_time timestamptz,
    state text NOT NULL,
    state_time timestamptz NOT NULL,
    state_rank smallint NOT NULL,
    held_by text NOT NULL,
    reason text NOT NULL,
    end_time timestamptz GENERATED ALWAYS AS (
        CASE WHEN state IN ('success', 'failed', 'rolled_back', 'rollback_failed', 'refused', 'cancelled')
             THEN state_time END) STORED
);
CREATE INDEX attempts_incident ON ops.attempts (incident) WHERE incident <> '';
CREATE INDEX attempts_decision ON ops.attempts (decision) WHERE decision <> '';
CREATE INDEX attempts_end ON ops.attempts (end_time) WHERE end_time IS NOT NULL;
CREATE INDEX attempts_live ON ops.attempts (plugin) WHERE end_time IS NULL;
CREATE TABLE ops.decisions (
    decision text PRIMARY KEY,
    incident text NOT NULL,
    merchant text NOT NULL,
    create_time timestamptz NOT NULL,
    action text NOT NULL,
    origin text NOT NULL,
    confidence double precision NOT NULL,
    decile smallint NOT NULL
);
CREATE INDEX decisions_create ON ops.decisions (create_time);
CREATE TABLE ops.attention (
    kind text NOT NULL,
    subject text NOT NULL,
    active boolean NOT NULL,
    time timestamptz NOT NULL,
    severity smallint NOT NULL,
    line text NOT NULL,
    command text NOT NULL,
    expire_time timestamptz,
    incident text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX attention_active ON ops.attention (severity DESC, time) WHERE active;
CREATE TABLE ops.retired_plugins (
    plugin text PRIMARY KEY,
    merchant text NOT NULL,
    retire_time timestamptz NOT NULL
);
CREATE TABLE ops.interventions (
    event_id uuid PRIMARY KEY,
    time timestamptz NOT NULL,
    fact text NOT NULL,
    actor text NOT NULL,
    merchant text NOT NULL,
    incident text NOT NULL
) PARTITION BY RANGE (event_id);
CREATE INDEX interventions_time ON ops.interventions (time);
CREATE TABLE ops.error_reports (
    report text PRIMARY KEY,
    merchant text NOT NULL,
    report_time timestamptz,
    resolve_time timestamptz,
    escalate_time timestamptz,
    close_time timestamptz,
    open_seconds double precision
);
CREATE INDEX error_reports_report ON ops.error_reports (report_time) WHERE report_time IS NOT NULL;
CREATE INDEX error_reports_resolve ON ops.error_reports (resolve_time) WHERE resolve_time IS NOT NULL;
CREATE INDEX error_reports_escalate ON ops.error_reports (escalate_time) WHERE escalate_time IS NOT NULL;
CREATE TABLE ops.task_outcomes (
    event_id uuid PRIMARY KEY,
    time timestamptz NOT NULL,
    completed integer NOT NULL,
    retrying integer NOT NULL,
    failed integer NOT NULL
) PARTITION BY RANGE (event_id);
CREATE INDEX task_outcomes_time ON ops.task_outcomes (time);
CREATE TABLE ops.uptime_probes (
    service text NOT NULL,
    minute timestamptz NOT NULL,
    probes integer NOT NULL,
    answered integer NOT NULL,
    PRIMARY KEY (service, minute)
) PARTITION BY RANGE (minute);
CREATE INDEX uptime_probes_minute ON ops.uptime_probes (minute);
CREATE TABLE ops.service_health (
    service text PRIMARY KEY,
    health text NOT NULL,
    since_time timestamptz NOT NULL,
    probe_time timestamptz NOT NULL
);
CREATE TABLE ops.projection_backfill (
    id smallint PRIMARY KEY CHECK (id = 1),
    position bigint NOT NULL,
    end_position bigint NOT NULL
);
INSERT INTO ops.projection_backfill VALUES (1, 0, 0)
"""
ANNOTATIONS = """
CREATE TABLE ops.assignments (
    id uuid PRIMARY KEY,
    incident text NOT NULL,
    merchant text NOT NULL,
    assignee text NOT NULL,
    actor text NOT NULL,
    time timestamptz NOT NULL
);
CREATE INDEX assignments_incident ON ops.assignments (incident, id DESC);
CREATE TABLE ops.comments (
    id uuid PRIMARY KEY,
    incident text NOT NULL,
    merchant text NOT NULL,
    text text NOT NULL,
    actor text NOT NULL,
    time timestamptz NOT NULL
);
CREATE INDEX comments_incident ON ops.comments (incident, id DESC)
"""
TABLES = (
    "requests", "comments", "assignments", "projection_backfill", "service_health", "uptime_probes", "task_outcomes",
    "error_reports", "interventions", "retired_plugins", "attention", "decisions", "attempts", "incidents", "errands",
    "deliveries", "notification_throttles", "notification_dedup_keys", "notifications", "notification_cursor",
    "notification_settings", "audit_findings", "audit_keys", "audit_checkpoints", "audit_nodes", "audit_entries",
    "audit_log", "spans", "labels", "timeline",
)  # fmt: skip


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    own = (TIMELINE, AUDIT, NOTIFICATIONS, PROJECTIONS, ANNOTATIONS)
    for tables in (*own, errands_table_sql("ops"), requests_table_sql("ops")):
        for statement in tables.split(";\n"):
            op.execute(statement)
    op.execute(REFUSE)
    for table in IMMUTABLE:
        op.execute(
            f"CREATE TRIGGER stays BEFORE UPDATE OR DELETE OR TRUNCATE ON ops.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ops.refuse_change()"
        )
    op.execute(LOG.format(origin=f"prunella/audit/{secrets.token_hex(8)}"))
    for statement in partition_statements("ops"):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    for table in TABLES:
        op.execute(f"DROP TABLE ops.{table}")
    op.execute("DROP FUNCTION ops.refuse_change()")
    op.execute("DROP FUNCTION ops.ensure_partitions(timestamptz, timestamptz)")
