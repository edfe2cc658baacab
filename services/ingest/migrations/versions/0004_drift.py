"""Which configurations are published, and which of them each plugin should have."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds both; nothing is expected of a plugin until one of them is known."""
    op.execute(
        """CREATE TABLE ingest.configurations (
            package text NOT NULL,
            version text NOT NULL,
            plugin text NOT NULL,
            digest text NOT NULL,
            PRIMARY KEY (package, version)
        )"""
    )
    op.execute("CREATE INDEX configurations_digest ON ingest.configurations (package, digest)")
    op.execute("ALTER TABLE ingest.pulses ADD COLUMN expected_config text NOT NULL DEFAULT ''")


def downgrade() -> None:
    """Removes them with everything in them."""
    op.execute("ALTER TABLE ingest.pulses DROP COLUMN expected_config")
    op.execute("DROP TABLE ingest.configurations")
