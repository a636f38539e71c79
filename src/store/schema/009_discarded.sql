-- Lines of a unit that a person had discarded: they came, are left out, and lack nobody.

ALTER TABLE unit ADD COLUMN discarded INTEGER NOT NULL DEFAULT 0;
