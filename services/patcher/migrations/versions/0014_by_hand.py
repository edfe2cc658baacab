"""Attempts that a person wants: who, and by which request."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; attempts so far are nobody's."""
    op.execute("ALTER TABLE patcher.attempts ADD COLUMN author text NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE patcher.attempts ADD COLUMN request_id text NOT NULL DEFAULT ''")
    op.execute("CREATE UNIQUE INDEX attempts_request ON patcher.attempts (author, request_id) WHERE request_id <> ''")


def downgrade() -> None:
    """Removes them."""
    op.execute("DROP INDEX patcher.attempts_request")
    op.execute("ALTER TABLE patcher.attempts DROP COLUMN request_id")
    op.execute("ALTER TABLE patcher.attempts DROP COLUMN author")
