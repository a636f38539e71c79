-- The staged file of what of a unit names its patient by an identifier: whose it is is known when all patients have come.

ALTER TABLE unit ADD COLUMN identified TEXT;
