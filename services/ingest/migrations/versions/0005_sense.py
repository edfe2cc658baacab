"""What is usual for a plugin, beside its windows: a hundred bytes or two, written only when they are due."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; nothing is usual yet."""
    op.execute("ALTER TABLE ingest.pulses ADD COLUMN sense bytea NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE ingest.pulses ALTER COLUMN sense SET STORAGE MAIN")


def downgrade() -> None:
    """Removes it with everything in it."""
    op.execute("ALTER TABLE ingest.pulses DROP COLUMN sense")
