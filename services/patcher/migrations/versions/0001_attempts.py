"""Policy, kill switches, releases, attempts with their history, permits, staging results, errands."""

from alembic import op

from libs.common.errands import errands_table_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

POLICY = """
CREATE TABLE patcher.policy (
    id integer PRIMARY KEY CHECK (id = 1),
    version bigint NOT NULL,
    autopatch_enabled boolean NOT NULL,
    autopatch_merchants text[] NOT NULL,
    autopatch_max_severity integer NOT NULL CHECK (autopatch_max_severity BETWEEN 1 AND 4),
    min_confidence double precision NOT NULL CHECK (min_confidence BETWEEN 0 AND 1),
    require_staging boolean NOT NULL,
    staging_timeout interval NOT NULL,
    health_check_timeout interval NOT NULL,
    health_check_interval interval NOT NULL,
    require_multisig_for_major boolean NOT NULL,
    require_multisig_for_high_impact boolean NOT NULL,
    multisig_quorum integer NOT NULL,
    rollback_error_rate_threshold double precision NOT NULL,
    rollback_heartbeat_missed interval NOT NULL,
    learning_enabled boolean NOT NULL,
    canary_percentage integer NOT NULL CHECK (canary_percentage BETWEEN 0 AND 100),
    canary_merchants text[] NOT NULL,
    update_time timestamptz,
    updated_by text NOT NULL,
    reason text NOT NULL,
    request_id text NOT NULL
);
INSERT INTO patcher.policy VALUES (
    1, 1, true, '{}', 2, 0.75, true, '300 seconds', '90 seconds', '3 seconds', true, true, 2, 10.0, '120 seconds', true,
    0, '{}', NULL, '', 'the defaults', '');
CREATE TABLE patcher.kill_switches (
    scope text PRIMARY KEY,
    engaged boolean NOT NULL,
    epoch bigint NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    update_time timestamptz NOT NULL,
    request_id text NOT NULL
);
CREATE TABLE patcher.releases (
    digest text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
    package text NOT NULL,
    version text NOT NULL,
    size bigint NOT NULL CHECK (size BETWEEN 1 AND 16777216),
    envelope bytea NOT NULL,
    artifact bytea NOT NULL CHECK (octet_length(artifact) = size),
    publish_time timestamptz NOT NULL,
    publisher text NOT NULL,
    key_ids text[] NOT NULL,
    UNIQUE (package, version)
);
ALTER TABLE patcher.releases ALTER COLUMN artifact SET STORAGE EXTERNAL;
CREATE INDEX releases_newest ON patcher.releases (publish_time DESC, digest DESC)
"""

ATTEMPTS = """
CREATE TABLE patcher.attempts (
    id text COLLATE "C" PRIMARY KEY,
    incident text NOT NULL,
    decision text NOT NULL UNIQUE,
    plugin text NOT NULL,
    merchant text NOT NULL,
    package text NOT NULL,
    action text NOT NULL,
    from_release text NOT NULL,
    to_release text NOT NULL,
    digest text NOT NULL,
    severity integer NOT NULL,
    symptom text NOT NULL,
    round integer NOT NULL,
    confidence double precision NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    held_by text NOT NULL,
    permitted boolean NOT NULL,
    permit_time timestamptz,
    generation bigint NOT NULL,
    fence bigint NOT NULL,
    command text NOT NULL,
    from_generation bigint NOT NULL,
    tries integer NOT NULL,
    refusals integer NOT NULL,
    rollbacks integer NOT NULL,
    commit_sent boolean NOT NULL,
    staged boolean,
    switch_time timestamptz,
    end_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    deadline timestamptz,
    trace text NOT NULL,
    detail jsonb NOT NULL,
    CONSTRAINT possibly_applied CHECK (NOT (permitted AND state IN ('failed', 'cancelled', 'refused')))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX attempts_one_live ON patcher.attempts (plugin)
    WHERE state IN ('pending', 'staging', 'staged', 'awaiting_approval', 'applying', 'probation', 'committing',
                    'rolling_back', 'unconfirmed') AND held_by <> 'PLUGIN_BUSY';
CREATE INDEX attempts_state ON patcher.attempts (state, deadline)
    WHERE state NOT IN ('success', 'rolled_back', 'rollback_failed', 'failed', 'cancelled', 'refused');
CREATE INDEX attempts_incident ON patcher.attempts (incident, id);
CREATE INDEX attempts_plugin ON patcher.attempts (plugin, id);
CREATE TABLE patcher.attempt_history (
    attempt text NOT NULL REFERENCES patcher.attempts,
    number bigint GENERATED ALWAYS AS IDENTITY,
    time timestamptz NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    observation text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (attempt, number)
);
CREATE TABLE patcher.permits (
    nonce text PRIMARY KEY,
    permit text NOT NULL,
    attempt text NOT NULL,
    plugin text NOT NULL,
    command text NOT NULL,
    generation bigint NOT NULL,
    fence bigint NOT NULL,
    granted boolean NOT NULL,
    gate text NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX permits_recent ON patcher.permits (create_time) WHERE granted;
CREATE TABLE patcher.staging_cache (
    digest text NOT NULL,
    suite text NOT NULL,
    environment text NOT NULL,
    result jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (digest, suite, environment)
)
"""

# A statement-level trigger would let an UPDATE without rows pass; that is harmless, so rows it is.
APPEND_ONLY = """
CREATE FUNCTION patcher.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the history of attempts is append-only' USING ERRCODE = 'insufficient_privilege';
END $$
"""
TRIGGER = """
CREATE TRIGGER history_is_append_only BEFORE UPDATE OR DELETE ON patcher.attempt_history
FOR EACH ROW EXECUTE FUNCTION patcher.append_only()
"""


def upgrade() -> None:
    """Makes the tables."""
    for statement in f"{POLICY};\n{ATTEMPTS};\n{errands_table_sql('patcher')}".split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute(APPEND_ONLY)
    op.execute(TRIGGER)


def downgrade() -> None:
    """Removes them with everything in them."""
    for table in (
        "errands", "staging_cache", "permits", "attempt_history", "attempts", "releases", "kill_switches", "policy",
    ):  # fmt: skip
        op.execute(f"DROP TABLE patcher.{table}")
    op.execute("DROP FUNCTION patcher.append_only()")
