"""Plugins, their state, incidents, commands and receipts, configurations, storms.

`plugin_state` has what changes with every beat, times as Unix seconds, and no index but its keys, so that an update
stays on its page. `plugins` has what rarely changes. Whatever belongs to a plugin refers to it together with its
merchant. Receipts are only added, so they are partitioned by the time in the id of their command.
"""

from alembic import op

from libs.common.idempotency import requests_table_sql
from libs.common.partitions import partition_statements

revision = "r1"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ingest.enrollment_tokens (
    digest bytea PRIMARY KEY,
    merchant text NOT NULL CHECK (merchant <> ''),
    package text NOT NULL,
    label text NOT NULL,
    expire_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    enrollment_key text,
    plugin uuid,
    replaces uuid,
    actor text NOT NULL DEFAULT ''
);
CREATE TABLE ingest.plugins (
    id uuid PRIMARY KEY,
    merchant text NOT NULL,
    package text NOT NULL,
    label text NOT NULL,
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
    last_generation bigint NOT NULL DEFAULT 0,
    UNIQUE (id, merchant)
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX plugins_label ON ingest.plugins (label) WHERE state <> 'retired';
CREATE INDEX plugins_labels ON ingest.plugins (label, id);
CREATE INDEX plugins_package ON ingest.plugins (package, id);
CREATE INDEX plugins_draw ON ingest.plugins (package, md5(CAST(id AS text)));
CREATE INDEX plugins_merchant ON ingest.plugins (merchant, id);
CREATE TABLE ingest.plugin_state (
    id uuid PRIMARY KEY,
    merchant text NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    active boolean NOT NULL DEFAULT true,
    session_epoch bigint NOT NULL DEFAULT 0,
    connected boolean NOT NULL DEFAULT false,
    boot_ids text NOT NULL DEFAULT '',
    sequence bigint NOT NULL DEFAULT 0,
    former_sequences text NOT NULL DEFAULT '',
    boot_time double precision NOT NULL DEFAULT 0,
    boot_epoch bigint NOT NULL DEFAULT 0,
    boot_returns smallint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    webhook_attempts bigint NOT NULL DEFAULT 0,
    webhook_failures bigint NOT NULL DEFAULT 0,
    signature_failures bigint NOT NULL DEFAULT 0,
    last_beat_time double precision NOT NULL,
    beats bigint NOT NULL DEFAULT 0,
    health smallint NOT NULL DEFAULT 0,
    release text NOT NULL DEFAULT '',
    generation bigint NOT NULL DEFAULT 0,
    digest text NOT NULL DEFAULT '',
    open_types integer NOT NULL DEFAULT 0,
    count_from_time double precision NOT NULL DEFAULT 0,
    errors_last_24h bigint NOT NULL DEFAULT 0,
    errors_last_24h_base bigint NOT NULL DEFAULT 0,
    polling boolean NOT NULL DEFAULT false,
    away boolean NOT NULL DEFAULT false,
    back_by_time double precision NOT NULL DEFAULT 0,
    commands_pending boolean NOT NULL DEFAULT false,
    windows bytea NOT NULL DEFAULT '',
    expected_config_digest text NOT NULL DEFAULT '',
    clock_skew double precision,
    reported_rates bytea NOT NULL DEFAULT '',
    baseline bytea NOT NULL DEFAULT '',
    FOREIGN KEY (id, merchant) REFERENCES ingest.plugins (id, merchant) ON UPDATE CASCADE
) WITH (fillfactor = 70, toast_tuple_target = 4080);
ALTER TABLE ingest.plugin_state ALTER COLUMN windows SET STORAGE MAIN, ALTER COLUMN baseline SET STORAGE MAIN;
CREATE TABLE ingest.replica_uptime (
    replica text PRIMARY KEY,
    start_time double precision NOT NULL,
    last_seen_time double precision NOT NULL
);
CREATE TABLE ingest.incidents (
    id uuid PRIMARY KEY,
    plugin uuid NOT NULL,
    merchant text NOT NULL,
    package text NOT NULL,
    type text NOT NULL,
    severity smallint NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'in_progress', 'escalated', 'flapping', 'mitigated', 'closed')),
    round integer NOT NULL,
    open_time timestamptz NOT NULL,
    first_bad_beat_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    act_by_time timestamptz NOT NULL,
    end_time timestamptz,
    attempt text NOT NULL DEFAULT '',
    permitted boolean NOT NULL DEFAULT false,
    action smallint NOT NULL DEFAULT 0,
    remedy text NOT NULL DEFAULT '',
    tried jsonb NOT NULL DEFAULT '[]',
    evidence jsonb NOT NULL DEFAULT '{}',
    release text NOT NULL DEFAULT '',
    generation bigint NOT NULL DEFAULT 0,
    healthy_windows integer NOT NULL DEFAULT 0,
    resolution text NOT NULL DEFAULT '',
    trace_id text NOT NULL DEFAULT '',
    traceparent text NOT NULL DEFAULT '',
    reopened integer NOT NULL DEFAULT 0,
    reopen_time timestamptz,
    calm_time timestamptz,
    escalate_time timestamptz,
    closed_by text NOT NULL DEFAULT '',
    healed_generation bigint NOT NULL DEFAULT 0,
    healed_decision text NOT NULL DEFAULT '',
    FOREIGN KEY (plugin, merchant) REFERENCES ingest.plugins (id, merchant) ON UPDATE CASCADE
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX incidents_active ON ingest.incidents (plugin, type)
    WHERE state IN ('open', 'in_progress', 'escalated', 'flapping');
CREATE INDEX incidents_plugin ON ingest.incidents (plugin, id);
CREATE INDEX incidents_overdue ON ingest.incidents (act_by_time) WHERE state IN ('open', 'in_progress');
CREATE INDEX incidents_pair ON ingest.incidents (package, type, (coalesce(reopen_time, open_time)));
CREATE INDEX incidents_last ON ingest.incidents (plugin, type, (coalesce(reopen_time, open_time)));
CREATE INDEX incidents_flapping ON ingest.incidents (calm_time) WHERE state = 'flapping';
CREATE TABLE ingest.commands (
    id uuid PRIMARY KEY,
    request_id text NOT NULL UNIQUE,
    plugin uuid NOT NULL,
    merchant text NOT NULL,
    attempt text NOT NULL,
    incident text NOT NULL,
    kind smallint NOT NULL,
    generation bigint NOT NULL,
    fence bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'delivered', 'received', 'done', 'failed', 'refused',
                                         'superseded', 'withdrawn', 'expired')),
    deadline_time timestamptz NOT NULL,
    issue_time timestamptz NOT NULL,
    release text NOT NULL,
    envelope bytea NOT NULL,
    digest text NOT NULL,
    size bigint NOT NULL,
    dead_man_seconds double precision NOT NULL,
    config bytea NOT NULL,
    traceparent text NOT NULL,
    first_write_time timestamptz,
    hand_out_time timestamptz,
    end_time timestamptz,
    detail text NOT NULL DEFAULT '',
    UNIQUE (id, merchant),
    UNIQUE (plugin, fence),
    FOREIGN KEY (plugin, merchant) REFERENCES ingest.plugins (id, merchant) ON UPDATE CASCADE
) WITH (fillfactor = 85);
CREATE INDEX commands_live ON ingest.commands (plugin) WHERE state IN ('pending', 'delivered', 'received');
CREATE INDEX commands_deadline ON ingest.commands (deadline_time) WHERE state IN ('pending', 'delivered', 'received');
CREATE INDEX commands_attempt ON ingest.commands (attempt, id);
CREATE TABLE ingest.receipts (
    command uuid NOT NULL,
    merchant text NOT NULL,
    outcome smallint NOT NULL,
    receive_time timestamptz NOT NULL,
    detail text NOT NULL,
    release text NOT NULL,
    digest text NOT NULL,
    unsolicited boolean NOT NULL,
    PRIMARY KEY (command, outcome),
    FOREIGN KEY (command, merchant) REFERENCES ingest.commands (id, merchant) ON UPDATE CASCADE
) PARTITION BY RANGE (command);
CREATE TABLE ingest.generations (
    plugin uuid NOT NULL,
    merchant text NOT NULL,
    generation bigint NOT NULL,
    attempt text NOT NULL,
    final_outcome smallint,
    final_time timestamptz,
    PRIMARY KEY (plugin, generation),
    FOREIGN KEY (plugin, merchant) REFERENCES ingest.plugins (id, merchant) ON UPDATE CASCADE
);
CREATE TABLE ingest.configurations (
    package text NOT NULL,
    version text NOT NULL,
    merchant text NOT NULL,
    plugin text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (package, version)
);
CREATE INDEX configurations_digest ON ingest.configurations (package, digest);
CREATE TABLE ingest.storms (
    id uuid PRIMARY KEY,
    package text NOT NULL,
    type text NOT NULL,
    state text NOT NULL CHECK (state IN ('ongoing', 'over')),
    start_time timestamptz NOT NULL,
    count_from_time timestamptz NOT NULL,
    cooldown_time timestamptz,
    end_time timestamptz,
    peak integer NOT NULL,
    plugins integer NOT NULL,
    fleet integer NOT NULL,
    reason text NOT NULL,
    end_reason text NOT NULL DEFAULT '',
    ended_by text NOT NULL DEFAULT '',
    traceparent text NOT NULL
);
CREATE UNIQUE INDEX storms_ongoing ON ingest.storms (package, type) WHERE state = 'ongoing';
CREATE INDEX storms_pair ON ingest.storms (package, type, start_time)
"""
MADE = (
    "requests", "storms", "configurations", "generations", "receipts", "commands", "incidents", "replica_uptime",
    "plugin_state", "plugins", "enrollment_tokens",
)  # fmt: skip


def upgrade() -> None:
    """Makes the tables, and the partitions of the weeks ahead."""
    for tables in (TABLES, requests_table_sql("ingest")):
        for statement in tables.split(";\n"):
            op.execute(statement)
    for statement in partition_statements("ingest"):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    op.execute("DROP FUNCTION ingest.ensure_partitions(timestamptz, timestamptz)")
    for table in MADE:
        op.execute(f"DROP TABLE ingest.{table}")
