-- What of a report cannot be told, as JSON: how many members, of how many, and the bounds of the score. None: nothing is open.
ALTER TABLE revision ADD COLUMN doubt TEXT;
