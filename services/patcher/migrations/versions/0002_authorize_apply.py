"""The permit: one function that locks first and reads later.

Under READ COMMITTED every statement of a volatile function sees what was committed before that statement began. The
locks are taken in a statement of their own, so the next one sees every kill switch whose engagement was committed
while this call waited. Locking and reading in one statement would read what stood before the wait, and permit after
the kill.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LOCK_KEY = """
CREATE FUNCTION patcher.lock_key(scope text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT hashtextextended('prunella kill switch ' || scope, 0) $$
"""

AUTHORIZE = """
CREATE FUNCTION patcher.authorize_apply(
    p_nonce text, p_permit text, p_plugin text, p_attempt text, p_command text, p_generation bigint, p_fence bigint,
    p_now timestamptz, OUT granted boolean, OUT permit text, OUT gate text, OUT fresh boolean)
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
    SELECT * INTO known FROM patcher.permits WHERE nonce = p_nonce;
    IF FOUND THEN
        granted := known.granted AND known.attempt = p_attempt AND known.command = p_command;
        permit := known.permit; fresh := false;
        gate := CASE WHEN granted OR known.gate <> '' THEN known.gate ELSE 'NONCE_REUSED' END;
        RETURN;
    END IF;
    SELECT * INTO STRICT rules FROM patcher.policy WHERE id = 1;
    gate := CASE
        WHEN tried.state <> 'applying' THEN 'ATTEMPT_NOT_APPLYING'
        WHEN tried.command <> '' AND (tried.command, tried.generation, tried.fence)
             IS DISTINCT FROM (p_command, p_generation, p_fence) THEN 'COMMAND_STALE'
        WHEN tried.command = '' AND p_fence <= tried.fence THEN 'COMMAND_STALE'
        WHEN EXISTS (SELECT 1 FROM patcher.kill_switches WHERE engaged AND scope = ANY (covering)) THEN 'KILL_SWITCH'
        WHEN NOT rules.autopatch_enabled THEN 'AUTOPATCH_DISABLED'
        WHEN tried.action = 'config_fix' THEN 'CONFIG_FIX_UNAVAILABLE'
        WHEN cardinality(rules.autopatch_merchants) > 0
             AND NOT tried.merchant = ANY (rules.autopatch_merchants) THEN 'ALLOW_LIST'
        WHEN tried.action IN ('patch', 'config_fix')
             AND NOT tried.severity BETWEEN 1 AND rules.autopatch_max_severity THEN 'SEVERITY'
        WHEN NOT tried.confidence >= rules.min_confidence THEN 'CONFIDENCE'
        WHEN rules.require_staging AND tried.action <> 'restart' AND tried.staged IS NOT TRUE THEN 'STAGING'
        ELSE '' END;
    granted := gate = '';
    permit := CASE WHEN granted THEN p_permit ELSE '' END;
    fresh := true;
    INSERT INTO patcher.permits (nonce, permit, attempt, plugin, command, generation, fence, granted, gate, create_time)
    VALUES (p_nonce, permit, p_attempt, p_plugin, p_command, p_generation, p_fence, granted, gate, p_now);
END $$
"""


def upgrade() -> None:
    """Makes the function."""
    op.execute(LOCK_KEY)
    # A colon before a letter would be read as a bind parameter.
    op.get_bind().exec_driver_sql(AUTHORIZE)


def downgrade() -> None:
    """Removes it."""
    op.execute("DROP FUNCTION patcher.authorize_apply")
    op.execute("DROP FUNCTION patcher.lock_key")
