CREATE TRIGGER reading_is_never_changed BEFORE UPDATE ON reading BEGIN SELECT raise(ABORT, 'a reading is never changed'); END;
