"""Tasks of the resolution queue, with the states a task can have."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE queue.tasks (
    id uuid PRIMARY KEY,
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'processing', 'retrying', 'completed', 'failed')),
    priority smallint NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),
    run_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX tasks_waiting ON queue.tasks (priority DESC, created_at) WHERE state IN ('pending', 'retrying')
"""


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    for statement in TABLES.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    op.execute("DROP TABLE queue.tasks")
