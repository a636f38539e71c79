-- The public halves of the keys that receipts were signed with: a receipt is verified also when another key has taken the place of its own.
CREATE TABLE receipt_key (
    id    TEXT    PRIMARY KEY,     -- `kid` of its receipts
    jwk   TEXT    NOT NULL,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- How much a site sent of late.
CREATE INDEX part_by_time ON part (site, received_at);
