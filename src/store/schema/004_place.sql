-- Where the reading of a query that takes longer than a night stands: sealed, because links may name patients.

CREATE TABLE place (
  pull_id  INTEGER NOT NULL REFERENCES pull (id),
  unit     TEXT NOT NULL,                 -- the unit that this will be
  number   INTEGER NOT NULL,              -- of the piece of it that is durable
  sealed   BLOB NOT NULL,
  PRIMARY KEY (pull_id, unit, number)
) STRICT, WITHOUT ROWID;
