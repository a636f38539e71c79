-- Nights: what was started, how far it came, what it reported, held back and could not translate.
-- Times are RFC 3339 text in UTC. No column holds a patient's value.

CREATE TABLE run (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  scheduled_at TEXT,                      -- the scheduled instant it answers; none when a person asked for it
  started_at   TEXT NOT NULL,             -- the night's "now", fixed for good: the date of its reports
  periods      TEXT NOT NULL,             -- JSON: the months it reports, fixed for good
  state        TEXT NOT NULL CHECK (state IN ('pulling', 'evaluating', 'delivering', 'finished', 'failed')),
  pull_id      INTEGER REFERENCES pull (id),
  complete     INTEGER CHECK (complete IN (0, 1)),
  gaps         TEXT NOT NULL DEFAULT '{}', -- JSON: what could not be had, by resource type
  quarantined  INTEGER NOT NULL DEFAULT 0,
  patients     INTEGER NOT NULL DEFAULT 0,
  lineage      TEXT,                      -- JSON: versions and digests of everything the numbers depend on
  feed         TEXT,                      -- the feed that carries its reports, new or unchanged
  reason       TEXT,                      -- why it failed, or what remains to be done
  finished_at  TEXT
) STRICT;
CREATE UNIQUE INDEX run_one_open ON run ((1)) WHERE state NOT IN ('finished', 'failed');

-- Reports that failed their check and wait for a person; the feed went without them.
CREATE TABLE run_held (
  run_id       INTEGER NOT NULL REFERENCES run (id),
  measure      TEXT NOT NULL,
  version      TEXT NOT NULL,
  period_start TEXT NOT NULL,
  period_end   TEXT NOT NULL,
  findings     TEXT NOT NULL,             -- one per line
  PRIMARY KEY (run_id, measure, period_start, period_end)
) STRICT, WITHOUT ROWID;

-- Local codes and units that the mapping does not know, by how many patients have them.
CREATE TABLE run_unmapped (
  run_id   INTEGER NOT NULL REFERENCES run (id),
  problem  TEXT NOT NULL,
  element  TEXT NOT NULL,
  system   TEXT NOT NULL,
  code     TEXT NOT NULL,
  patients INTEGER NOT NULL,
  PRIMARY KEY (run_id, problem, element, system, code)
) STRICT, WITHOUT ROWID;
