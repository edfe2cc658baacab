"""Error reports, tasks with leases, history, counts, strategies, proposals, and requests that may be repeated.

What changes often is narrow and apart from what is long (report_details), and no index covers a column that changes
with every try, so that most updates stay on their page. The status view looks for the first and last row of a state by
comparing rows, since with `state = …` the planner would rather look for a rare state among all tasks. Histories grow
for ever and are partitioned; `history.task` and `history.report` are no foreign keys: history outlives tasks, and each
insert would pay for the check. A report's key holds its merchant, and what belongs to a report refers to both, so that
it cannot belong to another merchant; the same index finds a report by its id alone. A merged kind counts in a row of
its own, since counters have an identity; only what they grow by goes to the report it is merged into.
"""

from alembic import op

from libs.common.errands import errands_table_sql
from libs.common.idempotency import requests_table_sql
from libs.common.partitions import partition_statements

revision = "r1"
down_revision = None
branch_labels = None
depends_on = None

REPORTS = """
CREATE TABLE queue.reports (
    id uuid NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    package text NOT NULL,
    release text NOT NULL,
    label text NOT NULL,
    fingerprint text NOT NULL,
    state text NOT NULL CHECK (state IN
        ('new', 'triaging', 'in_progress', 'resolved_pending', 'resolved', 'escalated', 'closed')),
    previous_state text NOT NULL DEFAULT '',
    type text NOT NULL,
    severity text NOT NULL DEFAULT '',
    reported_severity text NOT NULL,
    source text NOT NULL,
    counter text NOT NULL,
    counter_value bigint NOT NULL,
    occurrences bigint NOT NULL CHECK (occurrences >= 1),
    regressions integer NOT NULL DEFAULT 0,
    history_count integer NOT NULL DEFAULT 0,
    first_seen_time timestamptz NOT NULL,
    last_seen_time timestamptz NOT NULL,
    reported_time timestamptz,
    open_time timestamptz NOT NULL,
    triage_time timestamptz,
    watch_end_time timestamptz,
    resolve_time timestamptz,
    tried_strategies text[] NOT NULL DEFAULT '{}',
    task uuid,
    strategy text NOT NULL DEFAULT '',
    awaiting_approval text NOT NULL DEFAULT '',
    escalated boolean NOT NULL DEFAULT false,
    resolved_by text NOT NULL DEFAULT '',
    resolution_method text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    traceparent text NOT NULL,
    create_time timestamptz NOT NULL,
    merged_into uuid,
    split boolean NOT NULL DEFAULT false,
    CONSTRAINT reports_fingerprint UNIQUE (plugin, fingerprint),
    PRIMARY KEY (id, merchant),
    CHECK (state NOT IN ('new', 'triaging') OR triage_time IS NOT NULL),
    CHECK (state <> 'resolved_pending' OR watch_end_time IS NOT NULL),
    CHECK (merged_into IS NULL OR state = 'closed')
) WITH (fillfactor = 50);
CREATE INDEX reports_untriaged ON queue.reports (triage_time) WHERE triage_time IS NOT NULL;
CREATE INDEX reports_seen ON queue.reports (last_seen_time DESC, id DESC);
CREATE INDEX reports_escalated ON queue.reports (last_seen_time DESC, id DESC) WHERE escalated;
CREATE INDEX reports_created ON queue.reports (plugin, create_time);
CREATE INDEX reports_merged ON queue.reports (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX reports_awaiting_approval ON queue.reports (awaiting_approval) WHERE awaiting_approval <> '';
CREATE TABLE queue.report_details (
    report uuid PRIMARY KEY,
    merchant text NOT NULL,
    type text NOT NULL,
    module text NOT NULL,
    message text NOT NULL,
    stack text NOT NULL,
    context jsonb NOT NULL,
    grouping text[] NOT NULL,
    triage jsonb,
    FOREIGN KEY (report, merchant) REFERENCES queue.reports (id, merchant) ON DELETE CASCADE
);
CREATE TABLE queue.merged_kinds (
    plugin text NOT NULL,
    fingerprint text NOT NULL,
    merchant text NOT NULL,
    report uuid NOT NULL,
    overflow boolean NOT NULL,
    previous_state text NOT NULL,
    counter text NOT NULL,
    counter_value bigint NOT NULL,
    occurrences bigint NOT NULL,
    type text NOT NULL,
    message text NOT NULL,
    release text NOT NULL,
    last_seen_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (plugin, fingerprint),
    FOREIGN KEY (report, merchant) REFERENCES queue.reports (id, merchant) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX merged_kinds_of_report ON queue.merged_kinds (report, last_seen_time);
CREATE TABLE queue.watches (
    id uuid PRIMARY KEY,
    merchant text NOT NULL,
    end_time timestamptz NOT NULL,
    reports uuid[] NOT NULL
);
CREATE INDEX watches_end ON queue.watches (end_time)
"""
TASKS = """
CREATE TABLE queue.toolsets (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tools text[] NOT NULL UNIQUE
);
CREATE TABLE queue.toolset_claims (
    toolset integer PRIMARY KEY,
    claim_time timestamptz NOT NULL
);
CREATE TABLE queue.tasks (
    id uuid PRIMARY KEY,
    report uuid NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    strategy text NOT NULL,
    toolset integer NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'processing', 'retrying', 'completed', 'failed', 'cancelled')),
    priority smallint NOT NULL CHECK (priority BETWEEN 1 AND 10),
    rank timestamptz NOT NULL,
    attempts smallint NOT NULL DEFAULT 0,
    crashes smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL,
    token bigint NOT NULL DEFAULT 0,
    worker text NOT NULL DEFAULT '',
    estimated_seconds real NOT NULL,
    lease_expire_time timestamptz,
    claim_time timestamptz,
    run_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    end_time timestamptz,
    reason text NOT NULL DEFAULT '',
    traceparent text NOT NULL,
    FOREIGN KEY (report, merchant) REFERENCES queue.reports (id, merchant),
    CHECK ((state = 'processing') = (lease_expire_time IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (end_time IS NOT NULL)),
    CHECK (attempts <= max_attempts)
) WITH (fillfactor = 80);
CREATE INDEX tasks_waiting ON queue.tasks (toolset, rank, id) WHERE state = 'pending';
CREATE INDEX tasks_retrying ON queue.tasks (run_time) WHERE state = 'retrying';
CREATE UNIQUE INDEX tasks_active ON queue.tasks (report) WHERE state IN ('pending', 'processing', 'retrying');
CREATE INDEX tasks_state ON queue.tasks (state, id);
CREATE TABLE queue.history (
    id uuid PRIMARY KEY,
    report uuid NOT NULL,
    number integer NOT NULL,
    merchant text NOT NULL,
    task uuid,
    strategy text NOT NULL,
    worker text NOT NULL,
    method text NOT NULL,
    success boolean NOT NULL,
    outcome text NOT NULL,
    details text NOT NULL,
    tools text[] NOT NULL,
    seconds real NOT NULL,
    create_time timestamptz NOT NULL,
    actor text NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX history_of_report ON queue.history (report, number);
CREATE TABLE queue.state_counts (
    kind text NOT NULL,
    state text NOT NULL,
    count bigint NOT NULL,
    priority_sum bigint NOT NULL,
    seconds_sum double precision NOT NULL,
    PRIMARY KEY (kind, state)
);
CREATE TABLE queue.state_count_deltas (
    kind text NOT NULL,
    state text NOT NULL,
    count bigint NOT NULL,
    priority_sum bigint NOT NULL,
    seconds_sum double precision NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE VIEW queue.state_totals AS
    SELECT kind, state, sum(count) AS count, sum(priority_sum) AS priority_sum, sum(seconds_sum) AS seconds_sum
    FROM (
        SELECT kind, state, count, priority_sum, seconds_sum FROM queue.state_counts
        UNION ALL SELECT kind, state, count, priority_sum, seconds_sum FROM queue.state_count_deltas) AS together
    GROUP BY kind, state;
CREATE VIEW queue.task_states AS
    SELECT s.state, CAST(s.count AS bigint) AS count,
        CAST(s.priority_sum AS double precision) / s.count AS mean_priority,
        CASE WHEN oldest.state = s.state THEN oldest.create_time END AS oldest_create_time,
        CASE WHEN newest.state = s.state THEN newest.create_time END AS newest_create_time
    FROM queue.state_totals s
    LEFT JOIN LATERAL (
        SELECT t.state, t.create_time FROM queue.tasks t
        WHERE (t.state, t.id) >= (s.state, CAST('00000000-0000-0000-0000-000000000000' AS uuid))
        ORDER BY t.state, t.id LIMIT 1) oldest ON true
    LEFT JOIN LATERAL (
        SELECT t.state, t.create_time FROM queue.tasks t
        WHERE (t.state, t.id) <= (s.state, CAST('ffffffff-ffff-ffff-ffff-ffffffffffff' AS uuid))
        ORDER BY t.state DESC, t.id DESC LIMIT 1) newest ON true
    WHERE s.kind = 'task' AND s.count > 0;
"""
STRATEGIES = """
CREATE TABLE queue.strategies (
    name text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('candidate', 'active', 'demoted', 'retired')),
    successes bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    approved boolean NOT NULL DEFAULT false,
    approved_by text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    history_count integer NOT NULL DEFAULT 0,
    update_time timestamptz NOT NULL
);
CREATE TABLE queue.strategy_history (
    id uuid PRIMARY KEY,
    strategy text NOT NULL,
    number integer NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    confidence double precision NOT NULL,
    create_time timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX history_of_strategy ON queue.strategy_history (strategy, number);
CREATE TABLE queue.classifier_counts (
    type text PRIMARY KEY,
    examples double precision NOT NULL,
    features jsonb NOT NULL,
    correct double precision NOT NULL,
    incorrect double precision NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE TABLE queue.proposals (
    id uuid PRIMARY KEY,
    merchant text NOT NULL,
    action text NOT NULL CHECK (action IN ('retry_task', 'cancel_task', 'approve_strategy', 'close_report')),
    target text NOT NULL,
    reason text NOT NULL,
    author text NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'approved', 'rejected', 'expired')),
    decided_by text NOT NULL DEFAULT '',
    decision_reason text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL
);
CREATE INDEX proposals_open ON queue.proposals (expire_time) WHERE state = 'open'
"""
FUNCTIONS = (
    # A UUIDv7 of a moment: random, but for the milliseconds in front and the version.
    """
CREATE FUNCTION queue.uuid_v7(p_time timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT CAST(encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
        substring(int8send(CAST(floor(extract(epoch FROM p_time) * 1000) AS bigint)) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex') AS uuid)
$$
""",
    """
CREATE FUNCTION queue.history_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'history is append-only';
END $$
""",
    *(
        f"""
CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON queue.{table}
    FOR EACH ROW EXECUTE FUNCTION queue.history_is_append_only()
"""
        for table in ("history", "strategy_history")
    ),
)
DROPPED = (
    "VIEW task_states", "VIEW state_totals", "TABLE errands", "TABLE proposals", "TABLE classifier_counts",
    "TABLE strategy_history", "TABLE strategies", "TABLE requests", "TABLE state_count_deltas", "TABLE state_counts",
    "TABLE history", "TABLE tasks", "TABLE toolset_claims", "TABLE toolsets", "TABLE watches", "TABLE merged_kinds",
    "TABLE report_details",
    "TABLE reports", "FUNCTION history_is_append_only()", "FUNCTION uuid_v7(timestamptz)",
    "FUNCTION ensure_partitions(timestamptz, timestamptz)",
)  # fmt: skip


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    for text in (REPORTS, TASKS, STRATEGIES, errands_table_sql("queue"), requests_table_sql("queue")):
        for statement in text.split(";\n"):
            op.execute(statement)
    for statement in (*FUNCTIONS, *partition_statements("queue")):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Drops everything."""
    for dropped in DROPPED:
        kind, name = dropped.split(" ", 1)
        op.execute(f"DROP {kind} queue.{name}")
