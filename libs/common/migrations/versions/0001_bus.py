"""The bus: facts, what each consumer has done with them, and what could not be handled.

Each service role may insert facts of its own source alone and mark them as published; all may read. The inbox and the
letters belong to the consumer that is named in them.
"""

from alembic import op

revision = "0001"
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
    published_at timestamptz
) WITH (fillfactor = 85);
CREATE INDEX facts_unpublished ON bus.facts (source, time) WHERE published_at IS NULL;
CREATE INDEX facts_time ON bus.facts (time);
CREATE INDEX facts_incident ON bus.facts (incident, time) WHERE incident <> '';
CREATE TABLE bus.inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (consumer, event_id)
);
CREATE TABLE bus.settled (
    consumer text PRIMARY KEY,
    before timestamptz NOT NULL
);
CREATE TABLE bus.trouble (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    starts integer NOT NULL DEFAULT 0,
    errors integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '',
    retry_at timestamptz,
    PRIMARY KEY (consumer, event_id)
);
CREATE TABLE bus.dead_letter (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    fact text NOT NULL,
    reason text NOT NULL,
    errors integer NOT NULL,
    crashes integer NOT NULL,
    at timestamptz NOT NULL,
    redriven_at timestamptz,
    PRIMARY KEY (consumer, event_id)
);
"""

ROLES = """
ALTER TABLE bus.facts ENABLE ROW LEVEL SECURITY;
CREATE POLICY facts_read ON bus.facts FOR SELECT USING (true);
CREATE POLICY facts_tell ON bus.facts FOR INSERT WITH CHECK ('prunella_' || source = current_user);
CREATE POLICY facts_publish ON bus.facts FOR UPDATE USING ('prunella_' || source = current_user);
"""


def upgrade() -> None:
    """Makes the tables."""
    for statement in (TABLES + ROLES).split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    for table in ("dead_letter", "trouble", "settled", "inbox", "facts"):
        op.execute(f"DROP TABLE bus.{table}")
