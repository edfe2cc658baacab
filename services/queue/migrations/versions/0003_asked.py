"""When workers that have the tools of a set last asked for work, so that tasks nobody can do come to a person."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table; a set without a row was never asked for."""
    op.execute("CREATE TABLE queue.asked (toolset integer PRIMARY KEY, at timestamptz NOT NULL)")


def downgrade() -> None:
    """Drops it."""
    op.execute("DROP TABLE queue.asked")
