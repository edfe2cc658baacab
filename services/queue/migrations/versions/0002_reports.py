"""Error reports, tasks with leases, history, counts, and what makes requests harmless when repeated.

The tasks of revision 0001 were never written by any code, so that table is made anew. What changes often is narrow and
apart from what is long (contents), and no index covers a column that changes with every try, so that most updates stay
on their page. The status view looks for the first and last row of a state by comparing rows, since with `state = …` the
planner would rather look for a rare state among all tasks. `history.task` and `history.report` are no foreign keys:
history outlives tasks, and each insert would pay for the check.
"""

from alembic import op

from libs.common.errands import errands_table_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REPORTS = """
CREATE TABLE queue.reports (
    id uuid PRIMARY KEY,
    plugin text NOT NULL,
    merchant text NOT NULL,
    package text NOT NULL,
    release text NOT NULL,
    label text NOT NULL,
    fingerprint text NOT NULL,
    state text NOT NULL CHECK (state IN
        ('new', 'triaging', 'in_progress', 'resolved_pending', 'resolved', 'escalated', 'closed')),
    state_before text NOT NULL DEFAULT '',
    type text NOT NULL,
    severity text NOT NULL DEFAULT '',
    reported_severity text NOT NULL,
    source text NOT NULL,
    counter text NOT NULL,
    counter_value bigint NOT NULL,
    occurrences bigint NOT NULL CHECK (occurrences >= 1),
    regressions integer NOT NULL DEFAULT 0,
    entries integer NOT NULL DEFAULT 0,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    opened_at timestamptz NOT NULL,
    triage_at timestamptz,
    watch_until timestamptz,
    resolved_at timestamptz,
    tried text[] NOT NULL DEFAULT '{}',
    task uuid,
    strategy text NOT NULL DEFAULT '',
    awaits text NOT NULL DEFAULT '',
    with_person boolean NOT NULL DEFAULT false,
    resolved_by text NOT NULL DEFAULT '',
    method text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    traceparent text NOT NULL,
    CONSTRAINT reports_kind UNIQUE (plugin, fingerprint),
    CHECK (state NOT IN ('new', 'triaging') OR triage_at IS NOT NULL),
    CHECK (state <> 'resolved_pending' OR watch_until IS NOT NULL)
) WITH (fillfactor = 50);
CREATE INDEX reports_untriaged ON queue.reports (triage_at) WHERE triage_at IS NOT NULL;
CREATE INDEX reports_seen ON queue.reports (last_seen_at DESC, id DESC);
CREATE INDEX reports_with_person ON queue.reports (last_seen_at DESC, id DESC) WHERE with_person;
CREATE INDEX reports_awaiting ON queue.reports (awaits) WHERE awaits <> '';
CREATE TABLE queue.contents (
    report uuid PRIMARY KEY REFERENCES queue.reports (id) ON DELETE CASCADE,
    type text NOT NULL,
    module text NOT NULL,
    message text NOT NULL,
    stack text NOT NULL,
    context jsonb NOT NULL,
    grouping text[] NOT NULL,
    triage jsonb
);
CREATE TABLE queue.watches (
    id uuid PRIMARY KEY,
    until timestamptz NOT NULL,
    reports uuid[] NOT NULL
);
CREATE INDEX watches_until ON queue.watches (until)
"""
TASKS = """
DROP TABLE queue.tasks;
CREATE TABLE queue.toolsets (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tools text[] NOT NULL UNIQUE
);
CREATE TABLE queue.tasks (
    id uuid PRIMARY KEY,
    report uuid NOT NULL REFERENCES queue.reports (id),
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
    lease_until timestamptz,
    claimed_at timestamptz,
    run_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ended_at timestamptz,
    reason text NOT NULL DEFAULT '',
    traceparent text NOT NULL,
    CHECK ((state = 'processing') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
    CHECK (attempts <= max_attempts)
) WITH (fillfactor = 80);
CREATE INDEX tasks_waiting ON queue.tasks (toolset, rank, id) WHERE state = 'pending';
CREATE INDEX tasks_retrying ON queue.tasks (run_at) WHERE state = 'retrying';
CREATE UNIQUE INDEX tasks_active ON queue.tasks (report) WHERE state IN ('pending', 'processing', 'retrying');
CREATE INDEX tasks_state ON queue.tasks (state, id);
CREATE TABLE queue.history (
    report uuid NOT NULL,
    number integer NOT NULL,
    task uuid,
    strategy text NOT NULL,
    worker text NOT NULL,
    method text NOT NULL,
    success boolean NOT NULL,
    outcome text NOT NULL,
    details text NOT NULL,
    tools text[] NOT NULL,
    seconds real NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    PRIMARY KEY (report, number)
);
CREATE TABLE queue.counts (
    kind text NOT NULL,
    state text NOT NULL,
    number bigint NOT NULL,
    priorities bigint NOT NULL,
    seconds double precision NOT NULL,
    PRIMARY KEY (kind, state)
);
CREATE TABLE queue.count_deltas (
    kind text NOT NULL,
    state text NOT NULL,
    number bigint NOT NULL,
    priorities bigint NOT NULL,
    seconds double precision NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE VIEW queue.figures AS
    SELECT kind, state, sum(number) AS number, sum(priorities) AS priorities, sum(seconds) AS seconds
    FROM (
        SELECT kind, state, number, priorities, seconds FROM queue.counts
        UNION ALL SELECT kind, state, number, priorities, seconds FROM queue.count_deltas) AS together
    GROUP BY kind, state;
CREATE VIEW queue.task_status AS
    SELECT f.state, CAST(f.number AS bigint) AS count,
        CAST(f.priorities AS double precision) / f.number AS mean_priority,
        CASE WHEN oldest.state = f.state THEN oldest.created_at END AS oldest_task,
        CASE WHEN newest.state = f.state THEN newest.created_at END AS newest_task
    FROM queue.figures f
    LEFT JOIN LATERAL (
        SELECT t.state, t.created_at FROM queue.tasks t
        WHERE (t.state, t.id) >= (f.state, CAST('00000000-0000-0000-0000-000000000000' AS uuid))
        ORDER BY t.state, t.id LIMIT 1) oldest ON true
    LEFT JOIN LATERAL (
        SELECT t.state, t.created_at FROM queue.tasks t
        WHERE (t.state, t.id) <= (f.state, CAST('ffffffff-ffff-ffff-ffff-ffffffffffff' AS uuid))
        ORDER BY t.state DESC, t.id DESC LIMIT 1) newest ON true
    WHERE f.kind = 'task' AND f.number > 0;
CREATE TABLE queue.requests (
    caller text NOT NULL,
    request_id text NOT NULL,
    digest text NOT NULL,
    response bytea,
    at timestamptz NOT NULL,
    PRIMARY KEY (caller, request_id)
);
CREATE INDEX requests_at ON queue.requests (at)
"""
LEARNING = """
CREATE TABLE queue.strategies (
    name text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('candidate', 'active', 'demoted', 'retired')),
    successes bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    approved boolean NOT NULL DEFAULT false,
    approved_by text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL
);
CREATE TABLE queue.strategy_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    strategy text NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    confidence double precision NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX strategy_history_of ON queue.strategy_history (strategy, id);
CREATE TABLE queue.lessons (
    type text PRIMARY KEY,
    lessons double precision NOT NULL,
    features jsonb NOT NULL,
    "right" double precision NOT NULL,
    wrong double precision NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE TABLE queue.proposals (
    id uuid PRIMARY KEY,
    action text NOT NULL CHECK (action IN ('retry_task', 'cancel_task', 'approve_strategy', 'close_report')),
    target text NOT NULL,
    reason text NOT NULL,
    author text NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'approved', 'rejected', 'expired')),
    decided_by text NOT NULL DEFAULT '',
    decision_reason text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX proposals_open ON queue.proposals (expires_at) WHERE state = 'open'
"""
FUNCTIONS = (
    """
CREATE FUNCTION queue.history_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'history is append-only';
END $$
""",
    """
CREATE TRIGGER history_append_only BEFORE UPDATE OR DELETE ON queue.history
    FOR EACH ROW EXECUTE FUNCTION queue.history_is_append_only()
""",
    """
CREATE TRIGGER strategy_history_append_only BEFORE UPDATE OR DELETE ON queue.strategy_history
    FOR EACH ROW EXECUTE FUNCTION queue.history_is_append_only()
""",
)
MADE = (
    "VIEW task_status", "VIEW figures", "TABLE proposals", "TABLE lessons", "TABLE strategy_history",
    "TABLE strategies",
    "TABLE requests", "TABLE count_deltas", "TABLE counts", "TABLE history", "TABLE tasks", "TABLE toolsets",
    "TABLE watches", "TABLE contents", "TABLE reports", "TABLE errands",
)  # fmt: skip
BEFORE = """
CREATE TABLE queue.tasks (
    id uuid PRIMARY KEY, state text NOT NULL, priority smallint NOT NULL, run_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL)
"""


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    for text in (REPORTS, TASKS, LEARNING, errands_table_sql("queue")):
        for statement in text.split(";\n"):
            op.execute(statement)
    for statement in FUNCTIONS:
        op.execute(statement)


def downgrade() -> None:
    """Drops what this revision made, and leaves the table that was there."""
    for thing in MADE:
        kind, name = thing.split()
        op.execute(f"DROP {kind} queue.{name}")
    op.execute("DROP FUNCTION queue.history_is_append_only()")
    op.execute(BEFORE)
