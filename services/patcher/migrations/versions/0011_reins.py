"""What people hold the reins with: approvals, slots in flight, fleets, storms, and every version of the policy."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE patcher.approvals (
    id text COLLATE "C" PRIMARY KEY,
    subject text NOT NULL,
    plan text NOT NULL,
    plan_text text NOT NULL,
    standing text NOT NULL,
    due timestamptz,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    detail jsonb NOT NULL
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX approvals_one_live ON patcher.approvals (subject) WHERE standing IN ('waiting', 'approved');
CREATE INDEX approvals_subject ON patcher.approvals (subject, id);
CREATE INDEX approvals_due ON patcher.approvals (due) WHERE standing IN ('waiting', 'approved');
CREATE TABLE patcher.slots (
    holder text PRIMARY KEY,
    package text NOT NULL,
    take_time timestamptz NOT NULL
);
CREATE INDEX slots_package ON patcher.slots (package);
CREATE TABLE patcher.fleets (
    package text PRIMARY KEY,
    plugins integer NOT NULL CHECK (plugins >= 0),
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
CREATE TABLE patcher.policy_changes (
    version bigint PRIMARY KEY,
    actor text NOT NULL,
    reason text NOT NULL,
    time timestamptz,
    fields jsonb NOT NULL
)
"""
# What was in flight when this came has its slot, so that it is counted.
SLOTS = """
INSERT INTO patcher.slots (holder, package, take_time)
SELECT id, package, update_time FROM patcher.attempts
WHERE state IN ('applying', 'probation', 'committing', 'rolling_back', 'unconfirmed')
"""
# How the policy came to be as it is nobody wrote down before.
NOW = """
INSERT INTO patcher.policy_changes (version, actor, reason, time, fields)
SELECT version, updated_by, reason, update_time, '[]' FROM patcher.policy
"""
HISTORY = """
CREATE TRIGGER history_is_append_only BEFORE UPDATE OR DELETE ON patcher.policy_changes
FOR EACH ROW EXECUTE FUNCTION patcher.append_only()
"""


def upgrade() -> None:
    """Makes the tables."""
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute(SLOTS)
    op.execute(NOW)
    op.execute(HISTORY)
    op.execute("ALTER TABLE patcher.attempts ADD COLUMN plan text NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE patcher.attempts ADD COLUMN configuration text NOT NULL DEFAULT ''")


def downgrade() -> None:
    """Removes them with everything in them."""
    op.execute("ALTER TABLE patcher.attempts DROP COLUMN configuration")
    op.execute("ALTER TABLE patcher.attempts DROP COLUMN plan")
    for table in ("policy_changes", "storms", "fleets", "slots", "approvals"):
        op.execute(f"DROP TABLE patcher.{table}")
