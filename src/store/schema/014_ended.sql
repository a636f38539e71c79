-- Whether the table of an import ended with its last row: where it did, one that does not was cut short.
ALTER TABLE unit ADD COLUMN ended INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1));
