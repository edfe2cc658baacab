"""Rollouts, their members, slots, control groups and history; attempts that belong to one have no decision."""

from alembic import op

revision = "0010"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE patcher.rollouts (
    id text COLLATE "C" PRIMARY KEY,
    package text NOT NULL,
    target text NOT NULL,
    config boolean NOT NULL,
    digest text NOT NULL,
    state text NOT NULL,
    wave integer NOT NULL,
    closed boolean NOT NULL,
    reason text NOT NULL,
    author text NOT NULL,
    requests text[] NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    deadline timestamptz,
    end_time timestamptz,
    trace text NOT NULL,
    asked bytea NOT NULL,
    detail jsonb NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX rollouts_live ON patcher.rollouts (id)
    WHERE state NOT IN ('halted', 'aborted') AND NOT (state = 'succeeded' AND closed);
CREATE INDEX rollouts_package ON patcher.rollouts (package, id);
CREATE TABLE patcher.rollout_members (
    rollout text COLLATE "C" NOT NULL REFERENCES patcher.rollouts,
    plugin text NOT NULL,
    label text NOT NULL,
    wave integer NOT NULL,
    rank integer NOT NULL,
    state text NOT NULL,
    place integer NOT NULL DEFAULT 0,
    against boolean NOT NULL DEFAULT false,
    tries integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '',
    attempt text NOT NULL DEFAULT '',
    asked boolean NOT NULL DEFAULT false,
    holds boolean NOT NULL DEFAULT true,
    PRIMARY KEY (rollout, plugin)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX rollout_members_apart ON patcher.rollout_members (plugin) WHERE holds;
CREATE INDEX rollout_members_order ON patcher.rollout_members (rollout, wave, rank);
CREATE INDEX rollout_members_attempt ON patcher.rollout_members (attempt) WHERE attempt <> '';
CREATE INDEX rollout_members_unasked ON patcher.rollout_members (rollout, wave, rank)
    WHERE state = 'rolling_back' AND NOT asked;
CREATE TABLE patcher.rollout_slots (
    rollout text COLLATE "C" NOT NULL REFERENCES patcher.rollouts,
    number integer NOT NULL CHECK (number >= 1),
    plugin text NOT NULL,
    PRIMARY KEY (rollout, number),
    UNIQUE (rollout, plugin)
);
CREATE TABLE patcher.rollout_control (
    rollout text COLLATE "C" NOT NULL REFERENCES patcher.rollouts,
    wave integer NOT NULL,
    plugin text NOT NULL,
    since timestamptz NOT NULL,
    watched boolean NOT NULL DEFAULT false,
    broken boolean NOT NULL DEFAULT false,
    PRIMARY KEY (rollout, wave, plugin)
);
CREATE TABLE patcher.rollout_history (
    rollout text COLLATE "C" NOT NULL REFERENCES patcher.rollouts,
    number bigint GENERATED ALWAYS AS IDENTITY,
    time timestamptz NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    wave integer NOT NULL,
    observation text NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    PRIMARY KEY (rollout, number)
)
"""
HISTORY = """
CREATE TRIGGER history_is_append_only BEFORE UPDATE OR DELETE ON patcher.rollout_history
FOR EACH ROW EXECUTE FUNCTION patcher.append_only()
"""


def upgrade() -> None:
    """Makes the tables."""
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute(HISTORY)
    op.execute("ALTER TABLE patcher.attempts ADD COLUMN rollout text NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE patcher.attempts DROP CONSTRAINT attempts_decision_key")
    op.execute("CREATE UNIQUE INDEX attempts_decision ON patcher.attempts (decision) WHERE decision <> ''")


def downgrade() -> None:
    """Removes them with everything in them."""
    op.execute("DROP INDEX patcher.attempts_decision")
    op.execute("ALTER TABLE patcher.attempts DROP COLUMN rollout")
    op.execute("ALTER TABLE patcher.attempts ADD CONSTRAINT attempts_decision_key UNIQUE (decision)")
    for table in ("rollout_history", "rollout_control", "rollout_slots", "rollout_members", "rollouts"):
        op.execute(f"DROP TABLE patcher.{table}")
