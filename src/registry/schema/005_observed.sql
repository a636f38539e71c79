-- Of whom a score that is no fraction is, as JSON: members of the measure population, and those of whom something was observed. Strata
-- have it too, and their score: both are read again from the reports that are kept, and then a reading is as fixed as it was.
ALTER TABLE reading ADD COLUMN observed TEXT;
DROP TRIGGER reading_is_never_changed;
