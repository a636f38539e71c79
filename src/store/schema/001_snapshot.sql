-- Pulls, the segments they wrote, how far each type has been read, what was missed and what was refused.
-- Times are RFC 3339 text in UTC. No column holds a patient's value except `quarantine.sealed`, which is encrypted.

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE pull (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  source       TEXT NOT NULL,
  state        TEXT NOT NULL CHECK (state IN ('open', 'committed', 'abandoned')),
  full         INTEGER NOT NULL CHECK (full IN (0, 1)),
  plan         TEXT NOT NULL,             -- sha256 of the printed plan
  started_at   TEXT NOT NULL,
  finished_at  TEXT,
  complete     INTEGER CHECK (complete IN (0, 1)),
  new_versions INTEGER NOT NULL DEFAULT 0,
  removed      INTEGER NOT NULL DEFAULT 0,
  quarantined  INTEGER NOT NULL DEFAULT 0,
  digest       TEXT                       -- of the whole snapshot as of this pull
) STRICT;
CREATE UNIQUE INDEX pull_one_open ON pull (source) WHERE state = 'open';

-- One query page-run or one exported file: done units are durable and are not fetched again.
CREATE TABLE unit (
  pull_id       INTEGER NOT NULL REFERENCES pull (id),
  name          TEXT NOT NULL,
  resource_type TEXT NOT NULL,
  query         TEXT NOT NULL,
  state         TEXT NOT NULL CHECK (state IN ('done', 'gap')),
  reason        TEXT,
  expected      INTEGER,
  received      INTEGER NOT NULL,
  quarantined   INTEGER NOT NULL,
  undated       INTEGER NOT NULL,         -- resources without meta.lastUpdated
  server_time   TEXT,
  file          TEXT,
  sha256        TEXT,
  PRIMARY KEY (pull_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE bulk_job (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  pull_id       INTEGER NOT NULL REFERENCES pull (id),
  request       TEXT NOT NULL,
  state         TEXT NOT NULL CHECK (state IN ('intent', 'running', 'complete', 'released', 'lost')),
  status_url    TEXT,
  kicked_off_at TEXT NOT NULL,
  transaction_time TEXT,
  manifest      TEXT
) STRICT;

CREATE TABLE segment (
  pull_id      INTEGER NOT NULL REFERENCES pull (id),
  partition    TEXT NOT NULL,
  number       INTEGER NOT NULL,
  records      INTEGER NOT NULL,
  bytes        INTEGER NOT NULL,
  sha256       TEXT NOT NULL,             -- of the file as stored
  index_sha256 TEXT NOT NULL,
  PRIMARY KEY (pull_id, partition, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursor (
  source        TEXT NOT NULL,
  resource_type TEXT NOT NULL,
  value         TEXT NOT NULL,
  plan          TEXT NOT NULL,
  pull_id       INTEGER NOT NULL REFERENCES pull (id),
  PRIMARY KEY (source, resource_type)
) STRICT, WITHOUT ROWID;

-- Completeness: what each query of a pull should have brought and what it did bring.
CREATE TABLE ledger (
  pull_id       INTEGER NOT NULL REFERENCES pull (id),
  resource_type TEXT NOT NULL,
  query         TEXT NOT NULL,
  status        TEXT NOT NULL CHECK (status IN ('complete', 'partial', 'failed')),
  expected      INTEGER,
  received      INTEGER NOT NULL,
  reason        TEXT,
  PRIMARY KEY (pull_id, resource_type, query)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  first_pull    INTEGER NOT NULL REFERENCES pull (id),
  last_pull     INTEGER NOT NULL REFERENCES pull (id),
  seen          INTEGER NOT NULL DEFAULT 1,
  state         TEXT NOT NULL CHECK (state IN ('held', 'retry', 'released', 'discarded')),
  reason        TEXT NOT NULL,
  source        TEXT NOT NULL,            -- name of the query or file
  entry         INTEGER NOT NULL,         -- 1-based line or entry
  resource_type TEXT,
  bytes         INTEGER NOT NULL,
  sha256        TEXT NOT NULL,
  sealed        BLOB NOT NULL,
  UNIQUE (sha256, reason, source, entry)
) STRICT;

-- What a partition holds as of a pull that changed it.
CREATE TABLE partition_state (
  pull_id   INTEGER NOT NULL REFERENCES pull (id),
  partition TEXT NOT NULL,
  digest    TEXT NOT NULL,
  counts    TEXT NOT NULL,                -- JSON object: resource type to number
  PRIMARY KEY (partition, pull_id)
) STRICT, WITHOUT ROWID;
