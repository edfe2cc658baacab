"""Decisions, the feedback on them, the outcomes counted from it, and errands.

Outcomes are counted over all merchants, since a remedy is the same for each; feedback only grows, so it is cut into
weeks.
"""

from alembic import op

from libs.common.errands import errands_table_sql
from libs.common.partitions import partition_statements

revision = "r1"
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
    state text NOT NULL CHECK (state IN ('pending', 'made', 'superseded')),
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
    reasoning jsonb NOT NULL,
    inputs jsonb NOT NULL,
    candidates jsonb NOT NULL,
    versions jsonb NOT NULL,
    features jsonb NOT NULL,
    cause_id text NOT NULL,
    traceparent text NOT NULL,
    create_time timestamptz NOT NULL,
    decide_time timestamptz,
    deadline_time timestamptz,
    UNIQUE (incident, round),
    UNIQUE (id, merchant),
    CHECK ((state = 'made') = (decide_time IS NOT NULL)),
    CHECK (state <> 'pending' OR deadline_time IS NOT NULL)
);
CREATE INDEX decisions_plugin ON decider.decisions (plugin, id DESC);
CREATE INDEX decisions_pending ON decider.decisions (deadline_time) WHERE state = 'pending';
CREATE TABLE decider.outcomes (
    package text NOT NULL,
    symptom text NOT NULL,
    from_release text NOT NULL,
    action text NOT NULL,
    to_release text NOT NULL,
    successes double precision NOT NULL CHECK (successes >= 0),
    failures double precision NOT NULL CHECK (failures >= 0),
    update_time timestamptz NOT NULL,
    PRIMARY KEY (package, symptom, from_release, action, to_release)
);
CREATE TABLE decider.feedback (
    attempt text COLLATE "C" NOT NULL,
    outcome text NOT NULL,
    label text NOT NULL CHECK (label IN ('positive', 'negative', 'neutral')),
    decision uuid NOT NULL,
    incident text NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    package text NOT NULL,
    symptom text NOT NULL,
    from_release text NOT NULL,
    action text NOT NULL,
    to_release text NOT NULL,
    confidence double precision NOT NULL,
    propensity double precision NOT NULL,
    reason text NOT NULL,
    event_id text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (attempt, outcome),
    FOREIGN KEY (decision, merchant) REFERENCES decider.decisions (id, merchant)
) PARTITION BY RANGE (attempt);
CREATE INDEX feedback_healed ON decider.feedback (incident) WHERE label = 'positive';
CREATE FUNCTION decider.feedback_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'feedback is append-only';
END $$;
CREATE TRIGGER feedback_append_only BEFORE UPDATE OR DELETE ON decider.feedback
    FOR EACH ROW EXECUTE FUNCTION decider.feedback_is_append_only()
"""


def upgrade() -> None:
    """Makes the tables and the first weeks; each statement alone, since the driver prepares them."""
    for statement in _statements(TABLES) + _statements(errands_table_sql("decider")):
        op.execute(statement)
    for statement in partition_statements("decider"):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Drops what this revision made."""
    op.execute("DROP TABLE decider.feedback, decider.outcomes, decider.decisions, decider.errands")
    op.execute("DROP FUNCTION decider.feedback_is_append_only, decider.ensure_partitions")


def _statements(text: str) -> list[str]:
    # A semicolon at the end of a line ends a statement, except within the body of the function.
    found, body = [""], False
    for line in text.strip().splitlines():
        found[-1] += line + "\n"
        body = body != (line.count("$$") == 1)
        if line.endswith(";") and not body:
            found.append("")
    return [statement.strip().removesuffix(";") for statement in found if statement.strip()]
