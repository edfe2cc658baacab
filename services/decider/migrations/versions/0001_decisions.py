"""Decisions, what was learned, the feedback it was learned from, and errands."""

from alembic import op

from libs.common.errands import errands_table_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE decider.decisions (
    id uuid PRIMARY KEY,
    incident text NOT NULL,
    round integer NOT NULL CHECK (round >= 1),
    plugin text NOT NULL,
    merchant text NOT NULL,
    state text NOT NULL CHECK (state IN ('asking', 'made', 'superseded')),
    symptom text NOT NULL,
    severity text NOT NULL,
    package text NOT NULL,
    from_release text NOT NULL,
    action text NOT NULL,
    release text NOT NULL,
    origin text NOT NULL,
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    propensity double precision NOT NULL CHECK (propensity BETWEEN 0 AND 1),
    confident boolean NOT NULL,
    explanation text NOT NULL,
    story jsonb NOT NULL,
    situation jsonb NOT NULL,
    candidates jsonb NOT NULL,
    versions jsonb NOT NULL,
    features jsonb NOT NULL,
    cause_id text NOT NULL,
    traceparent text NOT NULL,
    created_at timestamptz NOT NULL,
    decided_at timestamptz,
    deadline_at timestamptz,
    UNIQUE (incident, round),
    CHECK ((state = 'made') = (decided_at IS NOT NULL)),
    CHECK (state <> 'asking' OR deadline_at IS NOT NULL)
);
CREATE INDEX decisions_plugin ON decider.decisions (plugin, id DESC);
CREATE INDEX decisions_asking ON decider.decisions (deadline_at) WHERE state = 'asking';
CREATE TABLE decider.learning (
    package text NOT NULL,
    symptom text NOT NULL,
    from_release text NOT NULL,
    action text NOT NULL,
    to_release text NOT NULL,
    successes double precision NOT NULL CHECK (successes >= 0),
    failures double precision NOT NULL CHECK (failures >= 0),
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (package, symptom, from_release, action, to_release)
);
CREATE TABLE decider.feedback (
    attempt text NOT NULL,
    outcome text NOT NULL,
    label text NOT NULL CHECK (label IN ('positive', 'negative', 'neutral')),
    decision uuid NOT NULL REFERENCES decider.decisions (id),
    incident text NOT NULL,
    plugin text NOT NULL,
    package text NOT NULL,
    symptom text NOT NULL,
    from_release text NOT NULL,
    action text NOT NULL,
    to_release text NOT NULL,
    confidence double precision NOT NULL,
    propensity double precision NOT NULL,
    reason text NOT NULL,
    event_id text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (attempt, outcome)
);
CREATE INDEX feedback_plugin ON decider.feedback (plugin);
CREATE FUNCTION decider.feedback_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'feedback is append-only';
END $$;
CREATE TRIGGER feedback_append_only BEFORE UPDATE OR DELETE ON decider.feedback
    FOR EACH ROW EXECUTE FUNCTION decider.feedback_is_append_only()
"""


def upgrade() -> None:
    """Makes the tables; each statement alone, since the driver prepares them."""
    for statement in _statements(TABLES) + _statements(errands_table_sql("decider")):
        op.execute(statement)


def downgrade() -> None:
    """Drops what this revision made."""
    for table in ("feedback", "learning", "decisions", "errands"):
        op.execute(f"DROP TABLE decider.{table}")
    op.execute("DROP FUNCTION decider.feedback_is_append_only()")


def _statements(text: str) -> list[str]:
    # A semicolon at the end of a line ends a statement, except within the body of the function.
    found, body = [""], False
    for line in text.strip().splitlines():
        found[-1] += line + "\n"
        body = body != (line.count("$$") == 1)
        if line.endswith(";") and not body:
            found.append("")
    return [statement.strip().removesuffix(";") for statement in found if statement.strip()]
