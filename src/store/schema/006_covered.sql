-- The patients of whom everything of a type was read, where not everybody was asked for; no row: all.

CREATE TABLE covered (
  source        TEXT NOT NULL,
  resource_type TEXT NOT NULL,
  plan          TEXT NOT NULL,            -- as the cursor's
  sealed        BLOB NOT NULL,            -- their ids, one a line
  PRIMARY KEY (source, resource_type)
) STRICT, WITHOUT ROWID;
