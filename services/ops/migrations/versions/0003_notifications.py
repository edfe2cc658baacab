"""Notifications: the settings, how far the timeline was read, messages, what was told already, and deliveries.

A message is `queued` while facts may still join it; there is at most one such for a route and urgency. What happened
before this revision bothers nobody: reading begins at the end of the timeline.
"""

from alembic import op

from libs.common.errands import errands_table_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ops.notification_settings (
    id smallint PRIMARY KEY CHECK (id = 1),
    version bigint NOT NULL,
    document jsonb NOT NULL,
    update_time timestamptz,
    updated_by text NOT NULL,
    reason text NOT NULL,
    request_id text NOT NULL
);
INSERT INTO ops.notification_settings VALUES (1, 0, '{}', NULL, '', '', '');
CREATE TABLE ops.notification_cursor (
    id smallint PRIMARY KEY CHECK (id = 1),
    position bigint NOT NULL
);
INSERT INTO ops.notification_cursor SELECT 1, coalesce(max(position), 0) FROM ops.timeline;
CREATE TABLE ops.notifications (
    id uuid PRIMARY KEY,
    route text NOT NULL,
    urgent boolean NOT NULL,
    state text NOT NULL
        CHECK (state IN ('queued', 'sending', 'sent', 'failed', 'suppressed', 'acknowledged')),
    detail text NOT NULL,
    severity smallint NOT NULL,
    facts integer NOT NULL,
    repeats integer NOT NULL,
    kinds jsonb NOT NULL,
    lines jsonb NOT NULL,
    plugins text[] NOT NULL,
    incidents text[] NOT NULL,
    step integer NOT NULL,
    created_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    act_by timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text NOT NULL
);
CREATE UNIQUE INDEX notifications_queued ON ops.notifications (route, urgent) WHERE state = 'queued';
CREATE INDEX notifications_due ON ops.notifications (due_at) WHERE state = 'queued';
CREATE INDEX notifications_act_by ON ops.notifications (act_by) WHERE act_by IS NOT NULL;
CREATE INDEX notifications_newest ON ops.notifications (created_at DESC, id DESC);
CREATE INDEX notifications_plugins ON ops.notifications USING gin (plugins);
CREATE INDEX notifications_incidents ON ops.notifications USING gin (incidents);
CREATE TABLE ops.notification_keys (
    route text NOT NULL,
    key text NOT NULL,
    notification uuid NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (route, key)
);
CREATE INDEX notification_keys_until ON ops.notification_keys (until);
CREATE TABLE ops.notification_paces (
    route text NOT NULL,
    urgent boolean NOT NULL,
    due timestamptz NOT NULL,
    gap double precision NOT NULL,
    PRIMARY KEY (route, urgent)
);
CREATE TABLE ops.deliveries (
    id uuid PRIMARY KEY,
    notification uuid NOT NULL REFERENCES ops.notifications (id) ON DELETE CASCADE,
    channel text NOT NULL,
    step integer NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'failed', 'suppressed')),
    tries integer NOT NULL,
    error text NOT NULL,
    answer text NOT NULL,
    created_at timestamptz NOT NULL,
    tried_at timestamptz,
    sent_at timestamptz,
    UNIQUE (notification, step, channel)
)
"""


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    for statement in (*TABLES.split(";\n"), *errands_table_sql("ops").split(";\n")):
        op.execute(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    tables = ("errands", "deliveries", "notification_paces", "notification_keys", "notifications")
    for table in (*tables, "notification_cursor", "notification_settings"):
        op.execute(f"DROP TABLE ops.{table}")
