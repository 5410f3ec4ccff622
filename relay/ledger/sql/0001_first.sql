-- What the first release keeps.  Times are microseconds since 1970-01-01 UTC, sizes bytes, digests raw.
-- Invariants live here: what a unique index or a CHECK forbids cannot be got wrong by any caller.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- schema_version is the number of the last file of this folder that was carried out; register_version grows with every
-- change of an office or a certificate, by whatever process.
INSERT INTO meta (key, value) VALUES ('schema_version', 1), ('register_version', 0);

CREATE TABLE office (
    number        TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    prefecture    TEXT NOT NULL,
    service_types TEXT NOT NULL,            -- codes joined by '|'
    status        TEXT NOT NULL CHECK (status IN ('active', 'suspended')),
    added_at      INTEGER NOT NULL,
    changed_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX office_prefecture ON office (prefecture, number);

CREATE TABLE certificate (
    ca_fingerprint  TEXT NOT NULL,
    serial          INTEGER NOT NULL,       -- below 2^63: SQLite's integers are signed
    key_id          TEXT NOT NULL,
    key_fingerprint TEXT NOT NULL,
    label           TEXT NOT NULL,
    valid_after     INTEGER NOT NULL,
    valid_before    INTEGER NOT NULL,
    issued_at       INTEGER NOT NULL,
    revoked_at      INTEGER,
    revoke_reason   TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (ca_fingerprint, serial)
) STRICT, WITHOUT ROWID;

CREATE INDEX certificate_serial ON certificate (serial);

-- The principals of a certificate: one company, many offices.
CREATE TABLE certificate_office (
    office         TEXT NOT NULL,
    ca_fingerprint TEXT NOT NULL,
    serial         INTEGER NOT NULL,
    PRIMARY KEY (ca_fingerprint, serial, office),
    FOREIGN KEY (ca_fingerprint, serial) REFERENCES certificate (ca_fingerprint, serial)
) STRICT, WITHOUT ROWID;

CREATE INDEX certificate_of_office ON certificate_office (office);

-- Sealed bytes.  Without a transfer that names it, a payload is an upload in progress and invisible.
-- wrapped_key is NULL while staged; of a payload that was destroyed nothing stays, and its transfer names none.
CREATE TABLE payload (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    uid         BLOB NOT NULL CHECK (length(uid) = 16),
    office      TEXT NOT NULL,              -- whose upload it is
    wrapped_key BLOB,
    master_id   TEXT,                       -- which master key wrapped it
    size_bytes  INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,          -- what it takes up: 0 once its bytes were destroyed
    holder      BLOB,                       -- who may add to it while it is staged (see partial)
    touched_at  INTEGER NOT NULL,           -- 0 once an upload was given up: its chunks are being removed
    CHECK ((wrapped_key IS NULL) = (master_id IS NULL)),
    CHECK (wrapped_key IS NULL OR (size_bytes > 0 AND chunk_count > 0 AND touched_at > 0))
) STRICT;

-- What all payloads of an office take up, kept by the triggers below.
CREATE TABLE stored (
    office TEXT PRIMARY KEY,
    bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER stored_more AFTER INSERT ON payload WHEN NEW.stored_bytes <> 0
BEGIN
    INSERT INTO stored (office, bytes) VALUES (NEW.office, NEW.stored_bytes)
    ON CONFLICT (office) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER stored_otherwise AFTER UPDATE OF stored_bytes ON payload WHEN NEW.stored_bytes <> OLD.stored_bytes
BEGIN
    INSERT INTO stored (office, bytes) VALUES (NEW.office, NEW.stored_bytes - OLD.stored_bytes)
    ON CONFLICT (office) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER stored_less AFTER DELETE ON payload WHEN OLD.stored_bytes <> 0
BEGIN
    UPDATE stored SET bytes = bytes - OLD.stored_bytes WHERE office = OLD.office;
END;

CREATE INDEX payload_staged ON payload (touched_at) WHERE wrapped_key IS NULL;

-- id = payload * 2^20 + number: chunks of a payload lie side by side, without a second index.
CREATE TABLE chunk (
    id     INTEGER PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

-- One row an accepted file.  The standard's own names are kept as they are; every other name may hold a person's
-- and is sealed under the payload's key.
CREATE TABLE transfer (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    sender           TEXT NOT NULL REFERENCES office (number),
    recipient        TEXT NOT NULL REFERENCES office (number),
    state            TEXT NOT NULL CHECK (state IN
                         ('accepted', 'collected', 'recalled', 'expired', 'discarded', 'superseded', 'destroyed')),
    shelf            TEXT NOT NULL CHECK (shelf IN ('receive', 'done', 'none')),
    grammar          TEXT NOT NULL,
    kind             TEXT NOT NULL,
    serial           TEXT NOT NULL,         -- '' where the name has none, so that it sorts and compares
    month            TEXT NOT NULL,
    in_folder        INTEGER NOT NULL CHECK (in_folder IN (0, 1)),
    name             TEXT,
    name_sealed      BLOB,
    delivered_prefix TEXT NOT NULL,         -- what the recipient sees in front of a free name
    size_bytes       INTEGER NOT NULL CHECK (size_bytes > 0),
    sha256           BLOB NOT NULL CHECK (length(sha256) = 32),
    payload          INTEGER REFERENCES payload (id),
    client_mtime     INTEGER,
    ca_fingerprint   TEXT NOT NULL,         -- with which certificate it was sent
    serial_sent_with INTEGER NOT NULL,
    findings         TEXT NOT NULL,         -- JSON: [[code, {fact: value}], …]
    accepted_at      INTEGER NOT NULL,
    collected_at     INTEGER,
    ended_at         INTEGER,
    in_outbox        INTEGER NOT NULL CHECK (in_outbox IN (0, 1)),
    identity_key     BLOB NOT NULL,         -- keyed digest of sender, recipient and folded name
    released         INTEGER NOT NULL,      -- 0 while this transfer holds its identity, then its own id
    staged_from      BLOB,                  -- keyed digest of the temporary name that a RENAME made this transfer of
    delivered_key    BLOB NOT NULL,         -- keyed digest of recipient and folded delivered name
    withdrawn        INTEGER NOT NULL,      -- 0 while the recipient sees it, then its own id
    completes        INTEGER REFERENCES transfer (id),  -- the transfer that was cut off and that this is the whole of
    recall_key       BLOB,                  -- keyed digest of sender and folded name while recall/ lists it
    CHECK ((name IS NULL) <> (name_sealed IS NULL)),
    CHECK ((shelf = 'none') = (withdrawn <> 0)),
    CHECK (released = 0 OR state <> 'accepted'),
    CHECK (released <> 0 OR state IN ('accepted', 'collected')),
    CHECK (released IN (0, id) AND withdrawn IN (0, id)),
    CHECK (state NOT IN ('accepted', 'collected') OR (payload IS NOT NULL AND ended_at IS NULL)),
    CHECK (state NOT IN ('recalled', 'superseded') OR (shelf = 'none' AND ended_at IS NOT NULL AND collected_at IS NULL)),
    CHECK (recall_key IS NULL OR state = 'recalled'),
    CHECK (state <> 'accepted' OR collected_at IS NULL),
    CHECK (state NOT IN ('collected', 'destroyed') OR collected_at IS NOT NULL)
) STRICT;

-- Exactly once, to exactly one office: one live transfer an identity, one visible file a delivered name.
CREATE UNIQUE INDEX transfer_identity ON transfer (identity_key, released);
CREATE UNIQUE INDEX transfer_delivered ON transfer (delivered_key, withdrawn);
-- The directories, in the order in which they are listed; the first and the last serve an office's status as well.
CREATE INDEX transfer_shelf ON transfer (recipient, shelf, sender, serial, id);
CREATE INDEX transfer_new ON transfer (recipient, sender, serial, id) WHERE state = 'accepted' AND shelf = 'receive';
CREATE INDEX transfer_outbox ON transfer (sender, in_outbox, id);
-- recall/, in which each name stands once: that of the file taken back last.
CREATE INDEX transfer_recalled ON transfer (sender, id) WHERE recall_key IS NOT NULL;
CREATE UNIQUE INDEX transfer_recall ON transfer (recall_key) WHERE recall_key IS NOT NULL;
-- What still has to be destroyed: the bytes at once, the key with the name after a while.
CREATE INDEX transfer_ended ON transfer (ended_at) WHERE state IN ('recalled', 'superseded') AND payload IS NOT NULL;
-- What leaves send/ next.
CREATE INDEX transfer_leaving ON transfer (collected_at) WHERE in_outbox = 1 AND collected_at IS NOT NULL;
-- No two transfers share bytes; and removing a payload asks whether a transfer names it.
CREATE UNIQUE INDEX transfer_payload ON transfer (payload);

-- What is kept of a transfer that may be part of a unit: see relay.unitparts.  A person is only a keyed digest here;
-- what can be read of one is sealed under the payload's key.
CREATE TABLE unit_part (
    transfer          INTEGER PRIMARY KEY REFERENCES transfer (id),
    sender_service    TEXT NOT NULL,        -- '' where the name has none
    recipient_service TEXT NOT NULL,
    keys              TEXT,                 -- JSON: [[subject, month or date, digest of the provider, persons], …]
    persons           BLOB,                 -- their digests, 16 bytes each, in the order of keys
    is_partial        INTEGER NOT NULL CHECK (is_partial IN (0, 1)),
    persons_sealed    BLOB,
    line_sealed       BLOB,                 -- the first line of the unit's message
    CHECK ((keys IS NULL) = (persons IS NULL)),
    CHECK (persons IS NULL OR length(persons) % 16 = 0)
) STRICT;

-- What the recipient has read so far of a file that it read in parts: JSON [[start, end], …], disjoint, ascending.
CREATE TABLE served (
    transfer INTEGER PRIMARY KEY REFERENCES transfer (id),
    ranges   TEXT NOT NULL
) STRICT;

-- An upload that is no transfer and may be taken up again: cut off, or under a temporary name until its RENAME.
CREATE TABLE partial (
    path_key    BLOB PRIMARY KEY,           -- keyed digest of office and folded path below send/
    office      TEXT NOT NULL,
    folder      TEXT NOT NULL,              -- '' at the top of send/
    payload     INTEGER NOT NULL UNIQUE REFERENCES payload (id) ON DELETE CASCADE,
    key_wrapped BLOB NOT NULL,
    note_sealed BLOB NOT NULL,              -- path and folder, as the client called them
    size_bytes  INTEGER NOT NULL,           -- without a gap from the beginning
    is_closed   INTEGER NOT NULL CHECK (is_closed IN (0, 1)),
    looks_whole INTEGER NOT NULL CHECK (looks_whole IN (0, 1)),
    client_mtime INTEGER,
    touched_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX partial_office ON partial (office, folder);
CREATE INDEX partial_touched ON partial (touched_at);

-- Address folders that an office has used: send/<folder>/ is listed from then on.
CREATE TABLE folder (
    office TEXT NOT NULL,
    folder TEXT NOT NULL,
    PRIMARY KEY (office, folder)
) STRICT, WITHOUT ROWID;

-- What was refused at the door: the same again counts up.
CREATE TABLE refusal (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    office      TEXT NOT NULL,
    refusal_key BLOB NOT NULL UNIQUE,       -- keyed digest of office, folded name, code and the content's digest
    code        TEXT NOT NULL,
    note_sealed BLOB NOT NULL,              -- name and facts
    first_at    INTEGER NOT NULL,
    last_at     INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    folder      TEXT NOT NULL,              -- '' at the top of send/
    path_key    BLOB NOT NULL,              -- keyed digest of office and folded path below send/
    has_note    INTEGER NOT NULL CHECK (has_note IN (0, 1))  -- 1 while a note of it lies beside the name
) STRICT;

CREATE INDEX refusal_office ON refusal (office, last_at);
CREATE INDEX refusal_path ON refusal (path_key, last_at);
CREATE INDEX refusal_note ON refusal (office, folder, last_at) WHERE has_note = 1;

-- Uploads that were given up, by their final name: a REMOVE soon after means them and no transfer.
CREATE TABLE attempt (
    path_key BLOB PRIMARY KEY,
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX attempt_at ON attempt (at);

-- History, append-only.
CREATE TABLE event (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    actor    TEXT NOT NULL,                 -- an office number, or the operator's login name
    office   TEXT,
    transfer INTEGER,
    detail   TEXT NOT NULL
) STRICT;

CREATE INDEX event_transfer ON event (transfer) WHERE transfer IS NOT NULL;

CREATE TRIGGER event_is_append_only_update BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER event_is_append_only_delete BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;

-- Whoever changes the register, by whatever statement: caches and open sessions learn of it.
CREATE TRIGGER register_office_changed AFTER UPDATE OF status, service_types, name ON office
BEGIN UPDATE meta SET value = value + 1 WHERE key = 'register_version'; END;
CREATE TRIGGER register_certificate_issued AFTER INSERT ON certificate
BEGIN UPDATE meta SET value = value + 1 WHERE key = 'register_version'; END;
CREATE TRIGGER register_certificate_changed AFTER UPDATE ON certificate
BEGIN UPDATE meta SET value = value + 1 WHERE key = 'register_version'; END;
