-- The count of a cohort, which was not read before, is read again from the reports that are kept, and then a reading is as fixed as it was.
DROP TRIGGER reading_is_never_changed;
