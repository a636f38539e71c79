-- Feeds on their way. A row is written in the transaction that finishes the night's reports.

CREATE TABLE outbox_epoch (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO outbox_epoch (id, epoch) VALUES (1, 0);

-- Report bodies by digest; shared by every feed that names them.
CREATE TABLE outbox_part (
    sha256    TEXT PRIMARY KEY,
    substance TEXT NOT NULL,          -- digest without the report's own date: equal numbers, equal substance
    body      BLOB NOT NULL
) STRICT;

CREATE TABLE outbox_feed (
    sequence        INTEGER PRIMARY KEY AUTOINCREMENT,
    feed            TEXT    NOT NULL,  -- first 128 bits of the manifest's digest
    destination     TEXT    NOT NULL,
    site            TEXT    NOT NULL,
    epoch           INTEGER NOT NULL,
    manifest        BLOB    NOT NULL,
    manifest_sha256 TEXT    NOT NULL,
    reports         INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'rebuilt')),
    confirm_due     INTEGER NOT NULL DEFAULT 0 CHECK (confirm_due IN (0, 1)),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,  -- milliseconds since 1970, UTC; so are all times here
    lease           TEXT,
    lease_until     INTEGER,
    reason          TEXT,
    receipt         TEXT,
    created_at      INTEGER NOT NULL,
    settled_at      INTEGER,
    UNIQUE (destination, feed)
) STRICT;
CREATE INDEX outbox_feed_waiting ON outbox_feed (destination, site, sequence) WHERE state = 'pending';

-- The reports a feed changed (a withdrawal has no digest); the newest row of a living feed is what the
-- destination has, or will have, for that key.
CREATE TABLE outbox_report (
    sequence     INTEGER NOT NULL REFERENCES outbox_feed (sequence),
    measure      TEXT    NOT NULL,
    period_start TEXT    NOT NULL,
    period_end   TEXT    NOT NULL,
    version      TEXT    NOT NULL,
    sha256       TEXT,
    complete     INTEGER NOT NULL,
    PRIMARY KEY (measure, period_start, period_end, sequence)
) STRICT, WITHOUT ROWID;
