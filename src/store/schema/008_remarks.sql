-- Reports that went out and that a person should look at: beyond what their measure calls plausible, or not of everybody.
CREATE TABLE run_remark (
  run_id       INTEGER NOT NULL REFERENCES run (id),
  measure      TEXT NOT NULL,
  version      TEXT NOT NULL,
  period_start TEXT NOT NULL,
  period_end   TEXT NOT NULL,
  findings     TEXT NOT NULL,             -- one per line
  PRIMARY KEY (run_id, measure, period_start, period_end)
) STRICT, WITHOUT ROWID;
