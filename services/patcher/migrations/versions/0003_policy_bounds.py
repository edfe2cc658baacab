"""Bounds of the policy: who approves, when nothing changes, how many at once, how often."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = {
    "multisig_roles": "text[] NOT NULL DEFAULT '{approver}'",
    "multisig_approvers": "text[] NOT NULL DEFAULT '{}'",
    "approval_timeout": "interval NOT NULL DEFAULT '1 hour'",
    "high_impact_plugins": "integer NOT NULL DEFAULT 50 CHECK (high_impact_plugins >= 1)",
    "freeze_windows": "jsonb NOT NULL DEFAULT '[]'",
    "max_in_flight": "integer NOT NULL DEFAULT 16 CHECK (max_in_flight >= 1)",
    "max_in_flight_percentage": "double precision NOT NULL DEFAULT 20",
    "max_attempts": "integer NOT NULL DEFAULT 6 CHECK (max_attempts >= 1)",
    "attempts_window": "interval NOT NULL DEFAULT '24 hours'",
}


def upgrade() -> None:
    """Adds them with what they were before anybody could say."""
    for name, kind in COLUMNS.items():
        op.execute(f"ALTER TABLE patcher.policy ADD COLUMN {name} {kind}")


def downgrade() -> None:
    """Removes them."""
    for name in COLUMNS:
        op.execute(f"ALTER TABLE patcher.policy DROP COLUMN {name}")
