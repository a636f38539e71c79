-- Whether the destination answered the last attempt and would not have us, as of a key that is not registered there: waiting alone mends nothing.
ALTER TABLE outbox_feed ADD COLUMN refused INTEGER NOT NULL DEFAULT 0 CHECK (refused IN (0, 1));
