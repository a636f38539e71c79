-- What was set aside, by resource type: a measure that reads none of it is complete without it. Of earlier nights nobody knows of what it was.
ALTER TABLE run ADD COLUMN aside TEXT NOT NULL DEFAULT '{}'; -- JSON, as gaps
UPDATE run SET aside = json_object('*', quarantined) WHERE quarantined > 0;
ALTER TABLE run DROP COLUMN quarantined;
-- Nothing of any type was let go of, for so much less of one came than before.
ALTER TABLE pull ADD COLUMN kept_all INTEGER NOT NULL DEFAULT 0 CHECK (kept_all IN (0, 1));
