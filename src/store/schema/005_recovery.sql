-- A person let this outbox go on from what its destination holds: feeds of before are history, and say nothing of what
-- stands there now. Segments that could not be read, and the pull that stands in for them.

ALTER TABLE outbox_feed ADD COLUMN is_history INTEGER NOT NULL DEFAULT 0 CHECK (is_history IN (0, 1));

ALTER TABLE segment ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0 CHECK (damaged IN (0, 1));
-- Readers as of this pull, or of a later one, pass it over.
ALTER TABLE segment ADD COLUMN replaced_by INTEGER REFERENCES pull (id);
