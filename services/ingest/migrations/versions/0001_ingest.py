"""Plugins, what was heard of them, incidents, commands.

`pulses` holds what changes with every beat and has no index but its key, so that an update stays on its page.
`plugins` holds what rarely changes.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ingest.enrollment_tokens (
    digest bytea PRIMARY KEY,
    merchant text NOT NULL,
    package text NOT NULL,
    label text NOT NULL,
    expire_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    enrollment_key text,
    plugin uuid
);
CREATE TABLE ingest.plugins (
    id uuid PRIMARY KEY,
    package text NOT NULL,
    merchant text NOT NULL,
    label text NOT NULL UNIQUE,
    secret bytea NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'quarantined', 'retired')),
    enroll_time timestamptz NOT NULL,
    end_time timestamptz,
    capabilities text[] NOT NULL DEFAULT '{}',
    agent_version text NOT NULL DEFAULT '',
    environment jsonb NOT NULL DEFAULT '{}',
    numbers jsonb NOT NULL DEFAULT '{}',
    config_digest text NOT NULL DEFAULT '',
    last_fence bigint NOT NULL DEFAULT 0,
    last_generation bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 85);
CREATE INDEX plugins_package ON ingest.plugins (package, id);
CREATE INDEX plugins_merchant ON ingest.plugins (merchant, id);
CREATE TABLE ingest.pulses (
    id uuid PRIMARY KEY REFERENCES ingest.plugins,
    version bigint NOT NULL DEFAULT 0,
    active boolean NOT NULL DEFAULT true,
    epoch bigint NOT NULL DEFAULT 0,
    connected boolean NOT NULL DEFAULT false,
    boots text NOT NULL DEFAULT '',
    sequence bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    signatures bigint NOT NULL DEFAULT 0,
    heard double precision NOT NULL,
    beats bigint NOT NULL DEFAULT 0,
    health smallint NOT NULL DEFAULT 0,
    release text NOT NULL DEFAULT '',
    generation bigint NOT NULL DEFAULT 0,
    digest text NOT NULL DEFAULT '',
    open_types integer NOT NULL DEFAULT 0,
    watch_from double precision NOT NULL DEFAULT 0,
    plain_last bigint NOT NULL DEFAULT 0,
    plain_errors bigint NOT NULL DEFAULT 0,
    polls boolean NOT NULL DEFAULT false,
    away boolean NOT NULL DEFAULT false,
    back_by double precision NOT NULL DEFAULT 0,
    windows bytea NOT NULL DEFAULT ''
) WITH (fillfactor = 70, toast_tuple_target = 4080);
ALTER TABLE ingest.pulses ALTER COLUMN windows SET STORAGE MAIN;
CREATE TABLE ingest.hearing (
    replica text PRIMARY KEY,
    since double precision NOT NULL,
    last double precision NOT NULL
);
CREATE TABLE ingest.incidents (
    id uuid PRIMARY KEY,
    plugin uuid NOT NULL REFERENCES ingest.plugins,
    merchant text NOT NULL,
    package text NOT NULL,
    type text NOT NULL,
    severity smallint NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'in_progress', 'escalated', 'mitigated', 'closed')),
    round integer NOT NULL,
    open_time timestamptz NOT NULL,
    first_bad_beat_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    act_by timestamptz NOT NULL,
    end_time timestamptz,
    attempt text NOT NULL DEFAULT '',
    action smallint NOT NULL DEFAULT 0,
    remedy text NOT NULL DEFAULT '',
    tried jsonb NOT NULL DEFAULT '[]',
    evidence jsonb NOT NULL DEFAULT '{}',
    release text NOT NULL DEFAULT '',
    generation bigint NOT NULL DEFAULT 0,
    healthy_windows integer NOT NULL DEFAULT 0,
    resolution text NOT NULL DEFAULT '',
    trace_id text NOT NULL DEFAULT '',
    traceparent text NOT NULL DEFAULT ''
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX incidents_active ON ingest.incidents (plugin, type)
    WHERE state IN ('open', 'in_progress', 'escalated');
CREATE INDEX incidents_plugin ON ingest.incidents (plugin, id);
CREATE INDEX incidents_overdue ON ingest.incidents (act_by) WHERE state IN ('open', 'in_progress');
CREATE TABLE ingest.commands (
    id uuid PRIMARY KEY,
    request_id text NOT NULL UNIQUE,
    plugin uuid NOT NULL REFERENCES ingest.plugins,
    attempt text NOT NULL,
    incident text NOT NULL,
    kind smallint NOT NULL,
    generation bigint NOT NULL,
    fence bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'delivered', 'received', 'done', 'failed', 'refused',
                                         'superseded', 'withdrawn', 'expired')),
    deadline timestamptz NOT NULL,
    issue_time timestamptz NOT NULL,
    release text NOT NULL,
    envelope bytea NOT NULL,
    digest text NOT NULL,
    size bigint NOT NULL,
    dead_man double precision NOT NULL,
    config bytea NOT NULL,
    traceparent text NOT NULL,
    first_write_time timestamptz,
    end_time timestamptz,
    detail text NOT NULL DEFAULT '',
    UNIQUE (plugin, fence)
) WITH (fillfactor = 85);
CREATE INDEX commands_live ON ingest.commands (plugin) WHERE state IN ('pending', 'delivered', 'received');
CREATE INDEX commands_deadline ON ingest.commands (deadline) WHERE state IN ('pending', 'delivered', 'received');
CREATE INDEX commands_attempt ON ingest.commands (attempt, id);
CREATE TABLE ingest.results (
    command uuid NOT NULL REFERENCES ingest.commands,
    word smallint NOT NULL,
    time timestamptz NOT NULL,
    detail text NOT NULL,
    release text NOT NULL,
    digest text NOT NULL,
    unasked boolean NOT NULL,
    PRIMARY KEY (command, word)
);
CREATE TABLE ingest.generations (
    plugin uuid NOT NULL REFERENCES ingest.plugins,
    generation bigint NOT NULL,
    attempt text NOT NULL,
    final smallint,
    final_time timestamptz,
    PRIMARY KEY (plugin, generation)
)
"""


def upgrade() -> None:
    """Makes the tables."""
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    for table in (
        "generations", "results", "commands", "incidents", "hearing", "pulses", "plugins", "enrollment_tokens"
    ):  # fmt: skip
        op.execute(f"DROP TABLE ingest.{table}")
