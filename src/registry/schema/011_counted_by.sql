-- By what a report says that it was counted, as JSON: digests of mapping, logic and codes; and all digests of its logic, by which numbers are
-- added up. Strata have the systems of their codes. All are read again from the reports that are kept, and then a reading is as fixed as it
-- was.
ALTER TABLE reading ADD COLUMN counted_by TEXT;
ALTER TABLE reading ADD COLUMN logic TEXT;
DROP TRIGGER reading_is_never_changed;
