"""The timeline of facts and the spans of traces.

A timeline row gets its position after its commit, from one writer at a time: see services/ops/store/timeline.py.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ops.timeline (
    event_id uuid PRIMARY KEY,
    position bigint UNIQUE,
    time timestamptz NOT NULL,
    fact text NOT NULL,
    plugin text NOT NULL,
    incident text NOT NULL,
    trace_id text NOT NULL,
    payload bytea NOT NULL
);
CREATE INDEX timeline_unplaced ON ops.timeline (time) WHERE position IS NULL;
CREATE INDEX timeline_plugin ON ops.timeline (plugin, position DESC) WHERE plugin <> '';
CREATE INDEX timeline_incident ON ops.timeline (incident, position DESC) WHERE incident <> '';
CREATE INDEX timeline_fact ON ops.timeline (fact, position DESC);
CREATE TABLE ops.labels (
    plugin text PRIMARY KEY,
    label text NOT NULL
);
CREATE TABLE ops.spans (
    trace_id text NOT NULL,
    span_id text NOT NULL,
    parent_id text NOT NULL,
    service text NOT NULL,
    name text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    error text NOT NULL,
    attributes jsonb NOT NULL,
    links text[] NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX spans_received ON ops.spans (received_at);
CREATE INDEX spans_links ON ops.spans USING gin (links) WHERE links <> '{}'
"""


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    for statement in TABLES.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    for table in ("spans", "labels", "timeline"):
        op.execute(f"DROP TABLE ops.{table}")
