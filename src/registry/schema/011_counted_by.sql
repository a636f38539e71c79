-- By what a report says that it was counted, as JSON: digests of mapping, logic and codes. It is read again from the reports that are kept, and
-- then a reading is as fixed as it was.
ALTER TABLE reading ADD COLUMN counted_by TEXT;
DROP TRIGGER reading_is_never_changed;
