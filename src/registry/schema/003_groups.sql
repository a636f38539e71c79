-- What a revision says, group by group. Most reports have one group, which needs no name: its key is empty.
CREATE TABLE reading (
    revision    INTEGER NOT NULL REFERENCES revision (id),
    place       INTEGER NOT NULL,                -- 0, 1, 2 … in the order of the report
    key         TEXT    NOT NULL,                -- by which the group's series is known: its id, or its code
    label       TEXT    NOT NULL,                -- for people
    improvement TEXT    CHECK (improvement IN ('increase', 'decrease')),  -- where the group says so itself
    numerator   TEXT,                            -- exact decimals, as read from the report
    denominator TEXT,
    score       TEXT,
    strata      TEXT    NOT NULL DEFAULT '[]',
    doubt       TEXT,
    PRIMARY KEY (revision, place),
    UNIQUE (revision, key)
) STRICT, WITHOUT ROWID;
INSERT INTO reading (revision, place, key, label, numerator, denominator, score, strata, doubt)
    SELECT id, 0, '', '', numerator, denominator, score, strata, doubt FROM revision WHERE sha256 IS NOT NULL;
ALTER TABLE revision DROP COLUMN numerator;
ALTER TABLE revision DROP COLUMN denominator;
ALTER TABLE revision DROP COLUMN score;
ALTER TABLE revision DROP COLUMN strata;
ALTER TABLE revision DROP COLUMN doubt;
CREATE TRIGGER reading_is_never_changed BEFORE UPDATE ON reading BEGIN SELECT raise(ABORT, 'a reading is never changed'); END;
CREATE TRIGGER reading_is_never_deleted BEFORE DELETE ON reading BEGIN SELECT raise(ABORT, 'a reading is never deleted'); END;
