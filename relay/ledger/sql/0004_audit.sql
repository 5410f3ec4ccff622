-- The audit: history is sealed batch by batch, one a transaction (see relay/audit.py).

-- Who wrote it, the writer's how manieth batch it is, which events it holds, and what seals them.
CREATE TABLE audit_batch (
    id           INTEGER PRIMARY KEY,
    writer       INTEGER NOT NULL,          -- one opening of the store by one process, named by its first batch
    number       INTEGER NOT NULL CHECK (number > 0),
    first_event  INTEGER NOT NULL,
    last_event   INTEGER NOT NULL CHECK (last_event >= first_event),
    at           INTEGER NOT NULL,
    key_id       TEXT NOT NULL,
    previous     BLOB NOT NULL CHECK (length(previous) = 32),      -- head of the batch before this one, whoever wrote it
    own_previous BLOB NOT NULL CHECK (length(own_previous) = 32),  -- head of its writer's batch before
    head         BLOB NOT NULL CHECK (length(head) = 32),
    mac          BLOB NOT NULL CHECK (length(mac) = 32),
    CHECK ((number = 1) = (writer = id))
) STRICT;

CREATE TRIGGER audit_batch_is_append_only_update BEFORE UPDATE ON audit_batch
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER audit_batch_is_append_only_delete BEFORE DELETE ON audit_batch
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
-- INSERT OR REPLACE removes a row without asking the triggers for DELETE.
CREATE TRIGGER audit_batch_is_append_only_insert BEFORE INSERT ON audit_batch
WHEN EXISTS (SELECT 1 FROM audit_batch WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER event_is_append_only_insert BEFORE INSERT ON event
WHEN EXISTS (SELECT 1 FROM event WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
