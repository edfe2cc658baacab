"""Policy, releases, configurations, attempts, approvals, permits and rollouts, and the function that permits.

Histories and permits only grow, so they are cut into weeks by the id of their attempt or rollout. What belongs to one
merchant carries it, and a row can belong to no other merchant than its attempt, or its rollout's member.
"""

from alembic import op

from libs.common.errands import errands_table_sql
from libs.common.idempotency import requests_table_sql
from libs.common.partitions import partition_statements
from services.patcher.migrations.rollouts import ROLLOUTS

revision = "r1"
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
    staging_timeout interval NOT NULL, min_isolation integer NOT NULL CHECK (min_isolation BETWEEN 1 AND 3),
    health_check_timeout interval NOT NULL, health_check_interval interval NOT NULL,
    require_multisig_for_major boolean NOT NULL,
    require_multisig_for_high_impact boolean NOT NULL,
    multisig_quorum integer NOT NULL,
    multisig_roles text[] NOT NULL,
    multisig_approvers text[] NOT NULL,
    approval_timeout interval NOT NULL,
    high_impact_plugins integer NOT NULL CHECK (high_impact_plugins >= 1),
    rollback_error_rate_threshold double precision NOT NULL,
    rollback_heartbeat_missed interval NOT NULL,
    learning_enabled boolean NOT NULL,
    canary_percentage integer NOT NULL CHECK (canary_percentage BETWEEN 0 AND 100),
    canary_merchants text[] NOT NULL,
    freeze_windows jsonb NOT NULL,
    max_in_flight integer NOT NULL CHECK (max_in_flight >= 1),
    max_in_flight_percentage double precision NOT NULL,
    max_attempts integer NOT NULL CHECK (max_attempts >= 1),
    attempts_window interval NOT NULL,
    update_time timestamptz,
    updated_by text NOT NULL,
    reason text NOT NULL
);
INSERT INTO patcher.policy VALUES (
    1, 1, true, '{}', 2, 0.75, true, '300 seconds', 3, '90 seconds', '3 seconds', true, true, 2, '{approver}', '{}',
    '1 hour', 50, 10.0, '120 seconds', true, 0, '{}', '[]', 16, 20, 6, '24 hours', NULL, '', 'the defaults');
CREATE TABLE patcher.policy_changes (
    version bigint PRIMARY KEY,
    actor text NOT NULL,
    reason text NOT NULL,
    create_time timestamptz,
    fields jsonb NOT NULL
);
INSERT INTO patcher.policy_changes VALUES (1, '', 'the defaults', NULL, '[]');
CREATE TABLE patcher.kill_switches (
    scope text PRIMARY KEY,
    engaged boolean NOT NULL,
    epoch bigint NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE TABLE patcher.storms (
    storm text PRIMARY KEY,
    package text NOT NULL,
    type text NOT NULL,
    reason text NOT NULL,
    begin_time timestamptz,
    end_time timestamptz
);
CREATE INDEX storms_on ON patcher.storms (package, type) WHERE end_time IS NULL;
CREATE TABLE patcher.fleets (
    package text PRIMARY KEY,
    plugins integer NOT NULL CHECK (plugins >= 0),
    update_time timestamptz NOT NULL
);
"""

PUBLISHED = """
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
CREATE INDEX releases_newest ON patcher.releases (publish_time DESC, digest DESC);
CREATE TABLE patcher.configurations (
    package text NOT NULL,
    version text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    document bytea NOT NULL CHECK (octet_length(document) BETWEEN 2 AND 262144),
    envelope bytea NOT NULL,
    publish_time timestamptz NOT NULL,
    publisher text NOT NULL,
    PRIMARY KEY (package, version)
);
CREATE INDEX configurations_digest ON patcher.configurations (package, digest);
CREATE INDEX configurations_newest ON patcher.configurations (publish_time DESC, package DESC, version DESC);
CREATE TABLE patcher.staging_cache (
    digest text NOT NULL,
    suite text NOT NULL,
    environment text NOT NULL,
    result jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (digest, suite, environment)
);
"""

ATTEMPTS = """
CREATE TABLE patcher.attempts (
    id text COLLATE "C" PRIMARY KEY,
    merchant text NOT NULL,
    incident text NOT NULL,
    decision text NOT NULL, rollout text NOT NULL, author text NOT NULL,
    plugin text NOT NULL, package text NOT NULL, action text NOT NULL,
    from_release text NOT NULL, to_release text NOT NULL, configuration text NOT NULL, digest text NOT NULL,
    severity integer NOT NULL,
    symptom text NOT NULL,
    round integer NOT NULL,
    confidence double precision NOT NULL,
    state text NOT NULL, reason text NOT NULL, held_by text NOT NULL,
    plan_hash text NOT NULL,
    permitted boolean NOT NULL,
    permit_time timestamptz,
    generation bigint NOT NULL, fence bigint NOT NULL,
    command text NOT NULL,
    from_generation bigint NOT NULL,
    tries integer NOT NULL, refusals integer NOT NULL, rollbacks integer NOT NULL,
    commit_sent boolean NOT NULL,
    staged boolean,
    switch_time timestamptz,
    end_time timestamptz,
    create_time timestamptz NOT NULL, update_time timestamptz NOT NULL, deadline_time timestamptz,
    traceparent text NOT NULL,
    detail jsonb NOT NULL,
    UNIQUE (id, merchant),
    CONSTRAINT possibly_applied CHECK (NOT (permitted AND state IN ('failed', 'cancelled', 'refused')))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX attempts_decision ON patcher.attempts (decision) WHERE decision <> '';
CREATE UNIQUE INDEX attempts_one_live ON patcher.attempts (plugin)
    WHERE state IN ('pending', 'staging', 'staged', 'awaiting_approval', 'applying', 'probation', 'committing',
                    'rolling_back', 'unconfirmed') AND held_by <> 'PLUGIN_BUSY';
CREATE INDEX attempts_state ON patcher.attempts (state, deadline_time)
    WHERE state NOT IN ('success', 'rolled_back', 'rollback_failed', 'failed', 'cancelled', 'refused');
CREATE INDEX attempts_incident ON patcher.attempts (incident, id);
CREATE INDEX attempts_plugin ON patcher.attempts (plugin, id);
CREATE TABLE patcher.attempt_history (
    attempt text COLLATE "C" NOT NULL,
    merchant text NOT NULL,
    number integer NOT NULL,
    create_time timestamptz NOT NULL,
    from_state text NOT NULL, to_state text NOT NULL,
    observation text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (attempt, number),
    FOREIGN KEY (attempt, merchant) REFERENCES patcher.attempts (id, merchant)
) PARTITION BY RANGE (attempt);
CREATE TABLE patcher.permits (
    attempt text COLLATE "C" NOT NULL,
    merchant text NOT NULL,
    nonce text NOT NULL,
    permit text NOT NULL,
    plugin text NOT NULL,
    command text NOT NULL,
    generation bigint NOT NULL, fence bigint NOT NULL,
    granted boolean NOT NULL,
    gate text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (attempt, nonce)
) PARTITION BY RANGE (attempt);
CREATE INDEX permits_nonce ON patcher.permits (nonce);
CREATE INDEX permits_time ON patcher.permits (create_time);
CREATE TABLE patcher.attempt_watches (
    attempt text COLLATE "C" PRIMARY KEY,
    merchant text NOT NULL,
    plugin text NOT NULL,
    generation bigint NOT NULL,
    begin_time timestamptz NOT NULL,
    until_time timestamptz NOT NULL,
    look_time timestamptz NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    before jsonb,
    end_time timestamptz,
    FOREIGN KEY (attempt, merchant) REFERENCES patcher.attempts (id, merchant)
) WITH (fillfactor = 80);
CREATE INDEX attempt_watches_due ON patcher.attempt_watches (look_time) WHERE end_time IS NULL;
CREATE TABLE patcher.slots (
    holder text PRIMARY KEY,
    merchant text NOT NULL,
    package text NOT NULL,
    take_time timestamptz NOT NULL
);
CREATE INDEX slots_package ON patcher.slots (package);
CREATE TABLE patcher.approvals (
    id text COLLATE "C" PRIMARY KEY,
    merchant text NOT NULL,
    subject text NOT NULL,
    plan_hash text NOT NULL,
    plan_text text NOT NULL,
    status text NOT NULL,
    due_time timestamptz,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    detail jsonb NOT NULL
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX approvals_one_live ON patcher.approvals (subject) WHERE status IN ('open', 'approved');
CREATE INDEX approvals_subject ON patcher.approvals (subject, id);
CREATE INDEX approvals_due ON patcher.approvals (due_time) WHERE status IN ('open', 'approved');
"""

# A statement-level trigger would let an UPDATE without rows pass; that is harmless, so rows it is.
APPEND_ONLY = """
CREATE FUNCTION patcher.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a history is append-only' USING ERRCODE = 'insufficient_privilege';
END $$
"""
TRIGGER = """
CREATE TRIGGER history_is_append_only BEFORE UPDATE OR DELETE ON patcher.{table}
FOR EACH ROW EXECUTE FUNCTION patcher.append_only()
"""
APPENDED = ("attempt_history", "rollout_history", "policy_changes")

LOCK_KEY = """
CREATE FUNCTION patcher.lock_key(scope text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT hashtextextended('prunella kill switch ' || scope, 0) $$
"""

# Whether the evidence for an attempt still stands, by what ingest has committed, whether its fact was delivered or not.
# The newest word counts, for an incident may be reopened; what was made before it ended is over all the same. What was
# handed to people only people go on with.
INCIDENT_OVER = """
CREATE FUNCTION patcher.incident_over(p_incident text, p_author text, p_since timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT fact IN ('incident_closed', 'incident_mitigated') OR (fact = 'incident_escalated' AND p_author = '')
        FROM bus.facts WHERE incident = p_incident AND p_incident <> '' AND source = 'ingest'
          AND starts_with(fact, 'incident')
        ORDER BY time DESC, id DESC LIMIT 1), false)
    OR EXISTS (
        SELECT 1 FROM bus.facts WHERE incident = p_incident AND p_incident <> '' AND source = 'ingest'
          AND fact IN ('incident_closed', 'incident_mitigated') AND time > p_since)
$$
"""

# The permit locks first and reads later. Under READ COMMITTED every statement of a volatile function sees what was
# committed before that statement began. The locks are taken in a statement of their own, so the next one sees every
# kill switch whose engagement was committed while this call waited. Locking and reading in one statement would read
# what stood before the wait, and permit after the kill. Whatever cannot be read in SQL, such as a freeze window, was
# looked at just before and comes as `p_objection`: it can only add a no.
AUTHORIZE = """
CREATE FUNCTION patcher.authorize_apply(
    p_nonce text, p_permit text, p_plugin text, p_attempt text, p_command text, p_generation bigint, p_fence bigint,
    p_now timestamptz, p_objection text DEFAULT '',
    OUT granted boolean, OUT permit text, OUT gate text, OUT fresh boolean)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    tried patcher.attempts;
    rules patcher.policy;
    known patcher.permits;
    covering text[];
BEGIN
    -- Plugin, merchant and action never change, so they may be read before the locks; nothing else is used from here.
    SELECT * INTO tried FROM patcher.attempts WHERE id = p_attempt;
    IF NOT FOUND OR tried.plugin <> p_plugin THEN
        granted := false; permit := ''; gate := 'ATTEMPT_UNKNOWN'; fresh := false;
        RETURN;
    END IF;
    covering := ARRAY['global', 'merchants/' || tried.merchant, 'plugins/' || tried.plugin, 'actions/' || tried.action];

    PERFORM pg_advisory_xact_lock_shared(patcher.lock_key(covering[1])),
            pg_advisory_xact_lock_shared(patcher.lock_key(covering[2])),
            pg_advisory_xact_lock_shared(patcher.lock_key(covering[3])),
            pg_advisory_xact_lock_shared(patcher.lock_key(covering[4]));

    SELECT * INTO tried FROM patcher.attempts WHERE id = p_attempt FOR UPDATE;
    SELECT * INTO known FROM patcher.permits WHERE nonce = p_nonce ORDER BY (attempt = p_attempt) DESC LIMIT 1;
    fresh := NOT FOUND;
    SELECT * INTO STRICT rules FROM patcher.policy WHERE id = 1;
    -- Given once is not given for ever: what stops automation may have come since.
    gate := CASE
        WHEN NOT fresh AND known.gate <> '' THEN known.gate
        WHEN NOT fresh AND (known.attempt, known.command) <> (p_attempt, p_command) THEN 'NONCE_REUSED'
        WHEN tried.state <> 'applying' THEN 'ATTEMPT_NOT_APPLYING'
        WHEN tried.command <> '' AND (tried.command, tried.generation, tried.fence)
             IS DISTINCT FROM (p_command, p_generation, p_fence) THEN 'COMMAND_STALE'
        WHEN tried.command = '' AND p_fence <= tried.fence THEN 'COMMAND_STALE'
        WHEN patcher.incident_over(tried.incident, tried.author, tried.create_time) THEN 'INCIDENT_OVER'
        WHEN EXISTS (SELECT 1 FROM patcher.kill_switches WHERE engaged AND scope = ANY (covering)) THEN 'KILL_SWITCH'
        WHEN EXISTS (SELECT 1 FROM patcher.storms
                     WHERE package = tried.package AND type = tried.symptom AND end_time IS NULL) THEN 'STORM'
        WHEN NOT rules.autopatch_enabled THEN 'AUTOPATCH_DISABLED'
        WHEN NOT fresh THEN ''
        WHEN cardinality(rules.autopatch_merchants) > 0
             AND NOT tried.merchant = ANY (rules.autopatch_merchants) THEN 'ALLOW_LIST'
        WHEN tried.action IN ('patch', 'config_fix') AND tried.rollout = ''
             AND NOT tried.severity BETWEEN 1 AND rules.autopatch_max_severity THEN 'SEVERITY'
        WHEN NOT tried.confidence >= rules.min_confidence THEN 'CONFIDENCE'
        WHEN rules.require_staging AND tried.action <> 'restart' AND tried.staged IS NOT TRUE THEN 'STAGING'
        WHEN rules.require_staging AND tried.action <> 'restart' AND rules.min_isolation > coalesce(array_position(
             ARRAY['none', 'user', 'namespaces'], tried.detail->'staging'->>'isolation'), 1) THEN 'ISOLATION'
        WHEN tried.plan_hash <> '' AND NOT EXISTS (
             SELECT 1 FROM patcher.approvals
             WHERE subject = 'attempts/' || tried.id AND status = 'approved' AND plan_hash = tried.plan_hash
               AND expire_time > p_now) THEN 'APPROVAL'
        ELSE p_objection END;
    granted := gate = '';
    IF NOT fresh THEN
        -- A permit that was given stays named in a denial: whoever got it may have switched under it.
        permit := CASE WHEN gate = 'NONCE_REUSED' THEN '' ELSE known.permit END;
        RETURN;
    END IF;
    permit := CASE WHEN granted THEN p_permit ELSE '' END;
    INSERT INTO patcher.permits (attempt, merchant, nonce, permit, plugin, command, generation, fence, granted, gate,
                                 create_time)
    VALUES (p_attempt, tried.merchant, p_nonce, permit, p_plugin, p_command, p_generation, p_fence, granted, gate,
            p_now);
END $$
"""


def upgrade() -> None:
    """Makes the tables, their first weeks, and the functions."""
    tables = (f"{POLICY}{PUBLISHED}{ATTEMPTS}{ROLLOUTS}", errands_table_sql("patcher"), requests_table_sql("patcher"))
    statements = [statement for part in tables for statement in part.split(";\n") if statement.strip()]
    statements += [
        APPEND_ONLY,
        *(TRIGGER.format(table=table) for table in APPENDED),
        LOCK_KEY,
        INCIDENT_OVER,
        AUTHORIZE,
    ]
    for statement in (*statements, *partition_statements("patcher")):
        # Not `op.execute`, which reads a colon before a letter as a bind parameter.
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    for function in ("authorize_apply", "incident_over", "lock_key", "ensure_partitions"):
        op.execute(f"DROP FUNCTION patcher.{function}")
    for table in (
        "requests", "errands",
        "rollout_control_group", "rollout_slots", "rollout_members", "rollout_history", "rollouts",
        "approvals", "slots", "attempt_watches", "permits", "attempt_history", "attempts", "staging_cache",
        "configurations", "releases", "fleets", "storms", "kill_switches", "policy_changes", "policy",
    ):  # fmt: skip
        op.execute(f"DROP TABLE patcher.{table}")
    op.execute("DROP FUNCTION patcher.append_only()")
