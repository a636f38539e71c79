-- What kind of reason a gap or a note has: whose turn it is follows from it.

ALTER TABLE unit ADD COLUMN code TEXT;
ALTER TABLE ledger ADD COLUMN code TEXT;
