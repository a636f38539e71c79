-- Of a composite what it is made of, as JSON: canonical URLs with their versions. It is read again from the reports that are kept, and
-- then a reading is as fixed as it was.
ALTER TABLE reading ADD COLUMN made_of TEXT;
DROP TRIGGER reading_is_never_changed;
