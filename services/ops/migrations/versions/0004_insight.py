"""What stories, figures and the overview are read from: projections of facts, and probes of the plane itself.

Every projection keeps the least or the most of what was said, or lets the latest fact win: facts come twice and in any
order (services/ops/states.py). What is on the timeline already leaves its marks afterwards, by a sweep; `past` says how
far it is.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
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
    seen_at timestamptz NOT NULL,
    first_bad_at timestamptz,
    opened_at timestamptz,
    decided_at timestamptz,
    applied_at timestamptz,
    escalated_at timestamptz,
    mitigated_at timestamptz,
    closed_at timestamptz,
    healed_by text NOT NULL,
    resolution text NOT NULL,
    manual boolean NOT NULL,
    began_at timestamptz GENERATED ALWAYS AS (coalesce(opened_at, seen_at)) STORED,
    ended_at timestamptz GENERATED ALWAYS AS (coalesce(mitigated_at, closed_at)) STORED,
    state text GENERATED ALWAYS AS (
        CASE WHEN mitigated_at IS NOT NULL THEN 'mitigated' WHEN closed_at IS NOT NULL THEN 'closed'
             WHEN escalated_at IS NOT NULL THEN 'escalated' ELSE 'open' END) STORED
);
CREATE INDEX incidents_began ON ops.incidents (began_at DESC, incident DESC);
CREATE INDEX incidents_plugin ON ops.incidents (plugin, began_at DESC, incident DESC);
CREATE INDEX incidents_merchant ON ops.incidents (merchant, began_at DESC, incident DESC);
CREATE INDEX incidents_ended ON ops.incidents (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX incidents_active ON ops.incidents (severity DESC, began_at DESC) WHERE ended_at IS NULL;
CREATE TABLE ops.attempts (
    attempt text PRIMARY KEY,
    incident text NOT NULL,
    decision text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    action text NOT NULL,
    from_release text NOT NULL,
    to_release text NOT NULL,
    by_person boolean NOT NULL,
    created_at timestamptz,
    applied_at timestamptz,
    state text NOT NULL,
    state_at timestamptz NOT NULL,
    state_rank smallint NOT NULL,
    held_by text NOT NULL,
    reason text NOT NULL,
    ended_at timestamptz GENERATED ALWAYS AS (
        CASE WHEN state IN ('success', 'failed', 'rolled_back', 'rollback_failed', 'refused', 'cancelled')
             THEN state_at END) STORED
);
CREATE INDEX attempts_incident ON ops.attempts (incident) WHERE incident <> '';
CREATE INDEX attempts_decision ON ops.attempts (decision) WHERE decision <> '';
CREATE INDEX attempts_ended ON ops.attempts (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX attempts_live ON ops.attempts (plugin) WHERE ended_at IS NULL;
CREATE TABLE ops.decisions (
    decision text PRIMARY KEY,
    incident text NOT NULL,
    merchant text NOT NULL,
    made_at timestamptz NOT NULL,
    action text NOT NULL,
    origin text NOT NULL,
    confidence double precision NOT NULL,
    decile smallint NOT NULL
);
CREATE INDEX decisions_made ON ops.decisions (made_at);
CREATE TABLE ops.needs (
    kind text NOT NULL,
    subject text NOT NULL,
    wanted boolean NOT NULL,
    at timestamptz NOT NULL,
    severity smallint NOT NULL,
    line text NOT NULL,
    command text NOT NULL,
    until timestamptz,
    incident text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX needs_wanted ON ops.needs (severity DESC, at) WHERE wanted;
CREATE TABLE ops.left_fleet (
    plugin text PRIMARY KEY,
    at timestamptz NOT NULL
);
CREATE TABLE ops.interventions (
    event_id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    fact text NOT NULL,
    actor text NOT NULL,
    merchant text NOT NULL,
    incident text NOT NULL
);
CREATE INDEX interventions_at ON ops.interventions (at);
CREATE TABLE ops.reports (
    report text PRIMARY KEY,
    merchant text NOT NULL,
    first_at timestamptz,
    resolved_at timestamptz,
    escalated_at timestamptz,
    closed_at timestamptz,
    open_seconds double precision
);
CREATE INDEX reports_first ON ops.reports (first_at) WHERE first_at IS NOT NULL;
CREATE INDEX reports_resolved ON ops.reports (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX reports_escalated ON ops.reports (escalated_at) WHERE escalated_at IS NOT NULL;
CREATE TABLE ops.task_ends (
    event_id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    completed integer NOT NULL,
    retrying integer NOT NULL,
    failed integer NOT NULL
);
CREATE INDEX task_ends_at ON ops.task_ends (at);
CREATE TABLE ops.probes (
    service text NOT NULL,
    minute timestamptz NOT NULL,
    probes integer NOT NULL,
    answered integer NOT NULL,
    PRIMARY KEY (service, minute)
);
CREATE INDEX probes_minute ON ops.probes (minute);
CREATE TABLE ops.service_health (
    service text PRIMARY KEY,
    health text NOT NULL,
    since timestamptz NOT NULL,
    probed_at timestamptz NOT NULL
);
CREATE TABLE ops.past (
    position bigint NOT NULL,
    until bigint NOT NULL
);
INSERT INTO ops.past (position, until)
SELECT 0, coalesce(max(position), 0) + count(*) FILTER (WHERE position IS NULL) FROM ops.timeline
"""
NAMES = (
    "past", "service_health", "probes", "task_ends", "reports", "interventions", "left_fleet", "needs", "decisions",
    "attempts", "incidents",
)  # fmt: skip


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    for statement in TABLES.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    for table in NAMES:
        op.execute(f"DROP TABLE ops.{table}")
