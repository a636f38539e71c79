-- The registry's database. Every row of a site carries the site; times are milliseconds since 1970, UTC.

CREATE TABLE site (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    organization TEXT    NOT NULL,
    client_id    TEXT    NOT NULL UNIQUE,
    jwks         TEXT,                     -- the registered keys, or
    jwks_url     TEXT,                     -- where the client publishes them
    added_at     INTEGER NOT NULL,
    epoch        INTEGER NOT NULL DEFAULT 0,  -- highest epoch seen
    head         TEXT,                     -- digest of the manifest committed last
    heard_at     INTEGER,                  -- last feed or confirmation
    CHECK ((jwks IS NULL) <> (jwks_url IS NULL))
) STRICT;

CREATE TABLE token (
    sha256     TEXT    PRIMARY KEY,
    site       INTEGER NOT NULL REFERENCES site (id),
    scope      TEXT    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Assertions seen, so that none is accepted twice, also after a restart.
CREATE TABLE used_assertion (
    issuer     TEXT    NOT NULL,
    jti        TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (issuer, jti)
) STRICT, WITHOUT ROWID;

CREATE TABLE feed (
    site            INTEGER NOT NULL REFERENCES site (id),
    feed            TEXT    NOT NULL,
    manifest        BLOB    NOT NULL,
    manifest_sha256 TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('open', 'committed', 'rejected', 'expired')),
    complete        INTEGER NOT NULL,
    gaps            INTEGER NOT NULL,
    quarantined     INTEGER NOT NULL,
    reports         INTEGER NOT NULL,
    received_at     INTEGER NOT NULL,
    settled_at      INTEGER,
    receipt         TEXT,                  -- compact JWS, once committed
    outcome         TEXT,                  -- OperationOutcome, once rejected
    PRIMARY KEY (site, feed)
) STRICT;
CREATE INDEX feed_by_time ON feed (site, settled_at);

-- What an announced feed consists of.
CREATE TABLE feed_part (
    site   INTEGER NOT NULL,
    feed   TEXT    NOT NULL,
    sha256 TEXT    NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (site, feed, sha256),
    FOREIGN KEY (site, feed) REFERENCES feed (site, feed)
) STRICT, WITHOUT ROWID;
CREATE INDEX feed_part_by_digest ON feed_part (site, sha256);

-- What was refused before it became a feed: shown on the arrival board until something arrives.
CREATE TABLE refusal (
    id      INTEGER PRIMARY KEY,
    site    INTEGER NOT NULL REFERENCES site (id),
    feed    TEXT    NOT NULL,
    status  INTEGER NOT NULL,
    reasons TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX refusal_by_time ON refusal (site, at);

-- Bodies by digest. Invisible until a committed feed's revision names them.
CREATE TABLE part (
    site        INTEGER NOT NULL REFERENCES site (id),
    sha256      TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (site, sha256)
) STRICT;

CREATE TABLE revision (
    id           INTEGER PRIMARY KEY,
    site         INTEGER NOT NULL REFERENCES site (id),
    measure      TEXT    NOT NULL,
    period_start TEXT    NOT NULL,
    period_end   TEXT    NOT NULL,
    number       INTEGER NOT NULL,         -- 1, 2, 3 … of this (site, measure, period), without gaps
    version      TEXT    NOT NULL,
    sha256       TEXT,                     -- none: withdrawn
    replaces     TEXT,                     -- digest of revision number - 1
    cause        TEXT,
    reason       TEXT,                     -- of a withdrawal
    complete     INTEGER NOT NULL,
    feed         TEXT    NOT NULL,
    committed_at INTEGER NOT NULL,
    numerator    TEXT,                     -- exact decimals, as read from the report
    denominator  TEXT,
    score        TEXT,
    strata       TEXT    NOT NULL DEFAULT '[]',  -- [[stratifier, stratum, numerator, denominator], …]
    UNIQUE (site, measure, period_start, period_end, number)
) STRICT;

CREATE TABLE current (
    site         INTEGER NOT NULL REFERENCES site (id),
    measure      TEXT    NOT NULL,
    period_start TEXT    NOT NULL,
    period_end   TEXT    NOT NULL,
    revision     INTEGER NOT NULL REFERENCES revision (id),
    PRIMARY KEY (measure, site, period_start, period_end)
) STRICT, WITHOUT ROWID;

-- hash = SHA-256 of (previous hash, line feed, body); body says who did what, when.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    body     TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash     TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit chain is append-only'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'the audit chain is append-only'); END;
CREATE TRIGGER revision_is_never_changed BEFORE UPDATE ON revision BEGIN SELECT raise(ABORT, 'a revision is never changed'); END;
CREATE TRIGGER revision_is_never_deleted BEFORE DELETE ON revision BEGIN SELECT raise(ABORT, 'a revision is never deleted'); END;
CREATE TRIGGER settled_feed_stays BEFORE UPDATE OF state, receipt, outcome, manifest ON feed WHEN old.state IN ('committed', 'rejected')
    BEGIN SELECT raise(ABORT, 'a settled feed is never changed'); END;
