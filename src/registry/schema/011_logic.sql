-- By what logic a number was computed, as JSON: the digests that its report states. Strata have the systems of their codes. Both are read
-- again from the reports that are kept, and then a reading is as fixed as it was.
ALTER TABLE reading ADD COLUMN logic TEXT;
DROP TRIGGER reading_is_never_changed;
