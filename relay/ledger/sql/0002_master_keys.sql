-- The master key can be rotated: which one is in use is a fact of the store.  Every process learns of it here, in the
-- transaction in which it writes what is sealed, so that nothing is written under a key that was rotated out.

CREATE TABLE master_key (
    id           TEXT PRIMARY KEY,
    since        INTEGER NOT NULL,
    ended_at     INTEGER,                   -- when another one took its place
    destroyed_at INTEGER,                   -- when nothing was left that it opens
    CHECK (destroyed_at IS NULL OR ended_at IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX master_key_in_use ON master_key ((1)) WHERE ended_at IS NULL;

-- Under which master key the row's sealed parts are; '' of rows from before this was kept.
ALTER TABLE partial ADD COLUMN master_id TEXT NOT NULL DEFAULT '';
ALTER TABLE refusal ADD COLUMN master_id TEXT NOT NULL DEFAULT '';
