"""Whether a plugin has commands to hear of, beside what every beat reads anyway: most have none, and need no look."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the flag; where it may be true it begins true, and the next look corrects it."""
    op.execute("ALTER TABLE ingest.pulses ADD COLUMN waiting boolean NOT NULL DEFAULT false")
    op.execute(
        """UPDATE ingest.pulses SET waiting = true, version = version + 1
           WHERE id IN (SELECT plugin FROM ingest.generations WHERE final IS NULL
                        UNION SELECT plugin FROM ingest.commands WHERE state IN ('pending', 'delivered', 'received'))"""
    )


def downgrade() -> None:
    """Removes it."""
    op.execute("ALTER TABLE ingest.pulses DROP COLUMN waiting")
