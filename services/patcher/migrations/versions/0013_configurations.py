"""Signed configurations of packages and plugins."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.execute(
        """CREATE TABLE patcher.configurations (
            package text NOT NULL,
            version text NOT NULL,
            plugin text NOT NULL,
            digest text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
            document bytea NOT NULL CHECK (octet_length(document) BETWEEN 2 AND 262144),
            envelope bytea NOT NULL,
            publish_time timestamptz NOT NULL,
            publisher text NOT NULL,
            PRIMARY KEY (package, version)
        )"""
    )
    op.execute("CREATE INDEX configurations_digest ON patcher.configurations (package, digest)")
    op.execute(
        """CREATE INDEX configurations_newest
        ON patcher.configurations (publish_time DESC, package DESC, version DESC)"""
    )


def downgrade() -> None:
    """Removes it with everything in it."""
    op.execute("DROP TABLE patcher.configurations")
