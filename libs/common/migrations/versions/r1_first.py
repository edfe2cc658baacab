"""The bus: facts, what each consumer has done with them, and what could not be handled.

Each service role may insert facts of its own source alone and mark them as published; all may read. Every other table
belongs to the consumer that is named in its rows. Facts and the inbox only grow, so they are cut into weeks.
"""

from alembic import op

from libs.common.partitions import partition_statements

revision = "r1"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE bus.facts (
    id uuid PRIMARY KEY,
    time timestamptz NOT NULL,
    source text NOT NULL,
    fact text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    incident text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    cause_id text NOT NULL,
    payload bytea NOT NULL,
    traceparent text NOT NULL,
    publish_time timestamptz
) PARTITION BY RANGE (id);
CREATE INDEX facts_unpublished ON bus.facts (source, time) WHERE publish_time IS NULL;
CREATE INDEX facts_time ON bus.facts (time);
CREATE INDEX facts_incident ON bus.facts (incident, time) WHERE incident <> '';
CREATE TABLE bus.inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    handle_time timestamptz NOT NULL,
    PRIMARY KEY (consumer, event_id)
) PARTITION BY RANGE (event_id);
CREATE TABLE bus.consumer_watermarks (
    consumer text PRIMARY KEY,
    watermark_time timestamptz NOT NULL
);
CREATE TABLE bus.delivery_failures (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    errors integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '',
    retry_time timestamptz,
    PRIMARY KEY (consumer, event_id)
);
CREATE TABLE bus.dead_letters (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    fact text NOT NULL,
    reason text NOT NULL,
    errors integer NOT NULL,
    crashes integer NOT NULL,
    create_time timestamptz NOT NULL,
    redrive_time timestamptz,
    PRIMARY KEY (consumer, event_id)
);
ALTER TABLE bus.facts ENABLE ROW LEVEL SECURITY;
CREATE POLICY facts_read ON bus.facts FOR SELECT USING (true);
CREATE POLICY facts_record ON bus.facts FOR INSERT WITH CHECK ('prunella_' || source = current_user);
CREATE POLICY facts_publish ON bus.facts FOR UPDATE USING ('prunella_' || source = current_user);
"""


def upgrade() -> None:
    """Makes the tables and their first weeks."""
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    for statement in partition_statements("bus"):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    op.execute("DROP FUNCTION bus.ensure_partitions")
    op.execute("DROP TABLE bus.dead_letters, bus.delivery_failures, bus.consumer_watermarks, bus.inbox, bus.facts")
