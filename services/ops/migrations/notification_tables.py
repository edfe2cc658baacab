"""The tables of notifications, as the first revision makes them."""

NOTIFICATIONS = """
CREATE TABLE ops.notification_settings (
    id smallint PRIMARY KEY CHECK (id = 1),
    version bigint NOT NULL,
    document jsonb NOT NULL,
    update_time timestamptz,
    updated_by text NOT NULL,
    reason text NOT NULL
);
INSERT INTO ops.notification_settings VALUES (1, 0, '{}', NULL, '', '');
CREATE TABLE ops.notification_cursor (
    id smallint PRIMARY KEY CHECK (id = 1),
    position bigint NOT NULL
);
INSERT INTO ops.notification_cursor VALUES (1, 0);
CREATE TABLE ops.notifications (
    id uuid PRIMARY KEY,
    route text NOT NULL,
    urgent boolean NOT NULL,
    state text NOT NULL
        CHECK (state IN ('queued', 'sending', 'sent', 'failed', 'suppressed', 'acknowledged')),
    detail text NOT NULL,
    severity smallint NOT NULL,
    facts integer NOT NULL,
    repeats integer NOT NULL,
    kinds jsonb NOT NULL,
    lines jsonb NOT NULL,
    plugins text[] NOT NULL,
    merchants text[] NOT NULL,
    incidents text[] NOT NULL,
    step integer NOT NULL,
    create_time timestamptz NOT NULL,
    due_time timestamptz NOT NULL,
    act_by_time timestamptz,
    acknowledge_time timestamptz,
    acknowledged_by text NOT NULL
);
CREATE UNIQUE INDEX notifications_queued ON ops.notifications (route, urgent) WHERE state = 'queued';
CREATE INDEX notifications_due ON ops.notifications (due_time) WHERE state = 'queued';
CREATE INDEX notifications_act_by ON ops.notifications (act_by_time) WHERE act_by_time IS NOT NULL;
CREATE INDEX notifications_newest ON ops.notifications (create_time DESC, id DESC);
CREATE INDEX notifications_plugins ON ops.notifications USING gin (plugins);
CREATE INDEX notifications_incidents ON ops.notifications USING gin (incidents);
CREATE TABLE ops.notification_dedup_keys (
    route text NOT NULL,
    key text NOT NULL,
    notification uuid NOT NULL,
    incident text NOT NULL,
    tell_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    repeats integer NOT NULL DEFAULT 0,
    last_event text NOT NULL DEFAULT '',
    last_time timestamptz,
    summary_time timestamptz,
    PRIMARY KEY (route, key)
);
CREATE INDEX notification_dedup_keys_due ON ops.notification_dedup_keys (least(summary_time, expire_time))
    WHERE repeats > 0;
CREATE INDEX notification_dedup_keys_expire ON ops.notification_dedup_keys (expire_time);
CREATE TABLE ops.notification_throttles (
    route text NOT NULL,
    urgent boolean NOT NULL,
    due_time timestamptz NOT NULL,
    interval_seconds double precision NOT NULL,
    PRIMARY KEY (route, urgent)
);
CREATE TABLE ops.deliveries (
    id uuid PRIMARY KEY,
    notification uuid NOT NULL REFERENCES ops.notifications (id) ON DELETE CASCADE,
    merchants text[] NOT NULL,
    channel text NOT NULL,
    step integer NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'failed', 'suppressed')),
    tries integer NOT NULL,
    error text NOT NULL,
    response text NOT NULL,
    create_time timestamptz NOT NULL,
    try_time timestamptz,
    send_time timestamptz,
    UNIQUE (notification, step, channel)
)
"""
