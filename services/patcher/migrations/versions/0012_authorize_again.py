"""The permit asks the gates that came since: storms, approvals, and what the gates outside of SQL object.

Locking and reading stay two statements (0002 says why). Whatever cannot be read in SQL, such as a freeze window, was
looked at just before and comes as `p_objection`: it can only add a no.
"""

import importlib.util
from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

OLD = "patcher.authorize_apply(text, text, text, text, text, bigint, bigint, timestamptz)"
NEW = "patcher.authorize_apply(text, text, text, text, text, bigint, bigint, timestamptz, text)"
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
        WHEN EXISTS (SELECT 1 FROM patcher.storms
                     WHERE package = tried.package AND type = tried.symptom AND end_time IS NULL) THEN 'STORM'
        WHEN NOT rules.autopatch_enabled THEN 'AUTOPATCH_DISABLED'
        WHEN cardinality(rules.autopatch_merchants) > 0
             AND NOT tried.merchant = ANY (rules.autopatch_merchants) THEN 'ALLOW_LIST'
        WHEN tried.action IN ('patch', 'config_fix') AND tried.rollout = ''
             AND NOT tried.severity BETWEEN 1 AND rules.autopatch_max_severity THEN 'SEVERITY'
        WHEN NOT tried.confidence >= rules.min_confidence THEN 'CONFIDENCE'
        WHEN rules.require_staging AND tried.action <> 'restart' AND tried.staged IS NOT TRUE THEN 'STAGING'
        WHEN tried.plan <> '' AND NOT EXISTS (
             SELECT 1 FROM patcher.approvals
             WHERE subject = 'attempts/' || tried.id AND standing = 'approved' AND plan = tried.plan
               AND expire_time > p_now) THEN 'APPROVAL'
        ELSE p_objection END;
    granted := gate = '';
    permit := CASE WHEN granted THEN p_permit ELSE '' END;
    fresh := true;
    INSERT INTO patcher.permits (nonce, permit, attempt, plugin, command, generation, fence, granted, gate, create_time)
    VALUES (p_nonce, permit, p_attempt, p_plugin, p_command, p_generation, p_fence, granted, gate, p_now);
END $$
"""


def upgrade() -> None:
    """Makes the function anew."""
    op.execute(f"DROP FUNCTION {OLD}")
    # A colon before a letter would be read as a bind parameter.
    op.get_bind().exec_driver_sql(AUTHORIZE)


def downgrade() -> None:
    """Brings back the one before."""
    op.execute(f"DROP FUNCTION {NEW}")
    path = Path(__file__).with_name("0002_authorize_apply.py")
    spec = importlib.util.spec_from_file_location("before", path)
    assert spec
    assert spec.loader
    before = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(before)
    op.get_bind().exec_driver_sql(before.AUTHORIZE)
