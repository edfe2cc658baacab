"""Tables of rollouts, which the first revision makes."""

ROLLOUTS = """
CREATE TABLE patcher.rollouts (
    id text COLLATE "C" PRIMARY KEY,
    package text NOT NULL, target text NOT NULL,
    config boolean NOT NULL,
    digest text NOT NULL,
    state text NOT NULL,
    wave integer NOT NULL,
    closed boolean NOT NULL,
    reason text NOT NULL,
    author text NOT NULL,
    create_time timestamptz NOT NULL, update_time timestamptz NOT NULL, deadline_time timestamptz,
    end_time timestamptz,
    traceparent text NOT NULL,
    settings bytea NOT NULL,
    detail jsonb NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX rollouts_live ON patcher.rollouts (id)
    WHERE state NOT IN ('halted', 'aborted') AND NOT (state = 'succeeded' AND closed);
CREATE INDEX rollouts_package ON patcher.rollouts (package, id);
CREATE TABLE patcher.rollout_history (
    rollout text COLLATE "C" NOT NULL REFERENCES patcher.rollouts,
    number integer NOT NULL,
    create_time timestamptz NOT NULL,
    from_state text NOT NULL, to_state text NOT NULL,
    wave integer NOT NULL,
    observation text NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    PRIMARY KEY (rollout, number)
) PARTITION BY RANGE (rollout);
CREATE TABLE patcher.rollout_members (
    rollout text COLLATE "C" NOT NULL REFERENCES patcher.rollouts,
    plugin text NOT NULL,
    merchant text NOT NULL,
    label text NOT NULL,
    wave integer NOT NULL,
    start_order integer NOT NULL,
    state text NOT NULL,
    switch_number integer NOT NULL DEFAULT 0,
    counted_against boolean NOT NULL DEFAULT false,
    tries integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '',
    attempt text NOT NULL DEFAULT '',
    rollback_requested boolean NOT NULL DEFAULT false,
    reserved boolean NOT NULL DEFAULT true,
    PRIMARY KEY (rollout, plugin),
    UNIQUE (rollout, plugin, merchant)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX rollout_members_reserved ON patcher.rollout_members (plugin) WHERE reserved;
CREATE INDEX rollout_members_order ON patcher.rollout_members (rollout, wave, start_order);
CREATE INDEX rollout_members_attempt ON patcher.rollout_members (attempt) WHERE attempt <> '';
CREATE INDEX rollout_members_rollback ON patcher.rollout_members (rollout, wave, start_order)
    WHERE state = 'rolling_back' AND NOT rollback_requested;
CREATE TABLE patcher.rollout_slots (
    rollout text COLLATE "C" NOT NULL,
    number integer NOT NULL CHECK (number >= 1),
    plugin text NOT NULL,
    merchant text NOT NULL,
    PRIMARY KEY (rollout, number),
    UNIQUE (rollout, plugin),
    FOREIGN KEY (rollout, plugin, merchant) REFERENCES patcher.rollout_members (rollout, plugin, merchant)
);
CREATE TABLE patcher.rollout_control_group (
    rollout text COLLATE "C" NOT NULL REFERENCES patcher.rollouts,
    wave integer NOT NULL,
    plugin text NOT NULL,
    merchant text NOT NULL,
    begin_time timestamptz NOT NULL,
    watched boolean NOT NULL DEFAULT false,
    broken boolean NOT NULL DEFAULT false,
    PRIMARY KEY (rollout, wave, plugin)
);
"""
