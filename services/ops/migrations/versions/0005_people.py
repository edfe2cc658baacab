"""What people note about incidents: who takes care of them, and comments."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ops.assignments (
    id uuid PRIMARY KEY,
    incident text NOT NULL,
    assignee text NOT NULL,
    actor text NOT NULL,
    request_id text NOT NULL,
    time timestamptz NOT NULL
);
CREATE INDEX assignments_incident ON ops.assignments (incident, id DESC);
CREATE UNIQUE INDEX assignments_request ON ops.assignments (actor, request_id) WHERE request_id <> '';
CREATE TABLE ops.comments (
    id uuid PRIMARY KEY,
    incident text NOT NULL,
    text text NOT NULL,
    actor text NOT NULL,
    request_id text NOT NULL,
    time timestamptz NOT NULL
);
CREATE INDEX comments_incident ON ops.comments (incident, id DESC);
CREATE UNIQUE INDEX comments_request ON ops.comments (actor, request_id) WHERE request_id <> ''
"""


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    for statement in TABLES.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    """Removes them with everything in them."""
    for table in ("comments", "assignments"):
        op.execute(f"DROP TABLE ops.{table}")
