-- Of what was not understood also what stands there and what should, as the units of a quantity.

CREATE TABLE run_found (
  run_id   INTEGER NOT NULL REFERENCES run (id),
  problem  TEXT NOT NULL,
  element  TEXT NOT NULL,
  system   TEXT NOT NULL,
  code     TEXT NOT NULL,
  found    TEXT NOT NULL,
  expected TEXT NOT NULL,
  patients INTEGER NOT NULL,
  PRIMARY KEY (run_id, problem, element, system, code, found, expected)
) STRICT, WITHOUT ROWID;
INSERT INTO run_found SELECT run_id, problem, element, system, code, '', '', patients FROM run_unmapped;
DROP TABLE run_unmapped;
ALTER TABLE run_found RENAME TO run_unmapped;
