"""Storms of (package, type), and the way to the incidents that make one."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table; at most one storm of a pair rages."""
    op.execute(
        """CREATE TABLE ingest.storms (
            id uuid PRIMARY KEY,
            package text NOT NULL,
            type text NOT NULL,
            state text NOT NULL CHECK (state IN ('storm', 'calm')),
            begin_time timestamptz NOT NULL,
            from_time timestamptz NOT NULL,
            calm_since timestamptz,
            end_time timestamptz,
            worst integer NOT NULL,
            plugins integer NOT NULL,
            fleet integer NOT NULL,
            reason text NOT NULL,
            end_reason text NOT NULL DEFAULT '',
            ended_by text NOT NULL DEFAULT '',
            request_id text NOT NULL DEFAULT '',
            traceparent text NOT NULL
        )"""
    )
    op.execute("CREATE UNIQUE INDEX storms_raging ON ingest.storms (package, type) WHERE state = 'storm'")
    op.execute("CREATE INDEX storms_pair ON ingest.storms (package, type, begin_time)")
    op.execute("CREATE INDEX incidents_pair ON ingest.incidents (package, type, open_time)")


def downgrade() -> None:
    """Removes them with everything in them."""
    op.execute("DROP INDEX ingest.incidents_pair")
    op.execute("DROP TABLE ingest.storms")
