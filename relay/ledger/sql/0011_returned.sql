-- Files that were given back to their senders, or reported as misdirected after they had been collected.

-- A CHECK can only be changed by making its table anew; who refers to it does so by its name, which stays.
CREATE TABLE transfer_anew (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    sender           TEXT NOT NULL REFERENCES office (number),
    recipient        TEXT NOT NULL REFERENCES office (number),
    state            TEXT NOT NULL CHECK (state IN
                         ('accepted', 'collected', 'recalled', 'returned', 'expired', 'discarded', 'superseded', 'destroyed')),
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
    reported_at      INTEGER,               -- when somebody said that it went to the wrong office, though it was collected
    CHECK ((name IS NULL) <> (name_sealed IS NULL)),
    CHECK ((shelf = 'none') = (withdrawn <> 0)),
    CHECK (released = 0 OR state <> 'accepted'),
    CHECK (released <> 0 OR state IN ('accepted', 'collected')),
    CHECK (released IN (0, id) AND withdrawn IN (0, id)),
    CHECK (state NOT IN ('accepted', 'collected') OR (payload IS NOT NULL AND ended_at IS NULL)),
    CHECK (state NOT IN ('recalled', 'returned', 'superseded') OR (shelf = 'none' AND ended_at IS NOT NULL AND collected_at IS NULL)),
    CHECK (recall_key IS NULL OR state IN ('recalled', 'returned')),
    CHECK (reported_at IS NULL OR (shelf = 'none' AND state IN ('collected', 'destroyed'))),
    CHECK (state <> 'accepted' OR collected_at IS NULL),
    CHECK (state NOT IN ('collected', 'destroyed') OR collected_at IS NOT NULL)
) STRICT;

INSERT INTO transfer_anew (
    id, sender, recipient, state, shelf, grammar, kind, serial, month, in_folder, name, name_sealed,
    delivered_prefix, size_bytes, sha256, payload, client_mtime, ca_fingerprint, serial_sent_with, findings,
    accepted_at, collected_at, ended_at, in_outbox, identity_key, released, staged_from, delivered_key,
    withdrawn, completes, recall_key)
SELECT
    id, sender, recipient, state, shelf, grammar, kind, serial, month, in_folder, name, name_sealed,
    delivered_prefix, size_bytes, sha256, payload, client_mtime, ca_fingerprint, serial_sent_with, findings,
    accepted_at, collected_at, ended_at, in_outbox, identity_key, released, staged_from, delivered_key,
    withdrawn, completes, recall_key
FROM transfer;

-- No number is ever given twice, also those of which no row is left.
DELETE FROM sqlite_sequence WHERE name = 'transfer_anew';
INSERT INTO sqlite_sequence (name, seq) SELECT 'transfer_anew', seq FROM sqlite_sequence WHERE name = 'transfer';

DROP TABLE transfer;
ALTER TABLE transfer_anew RENAME TO transfer;

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
-- What leaves send/ next.
CREATE INDEX transfer_leaving ON transfer (collected_at) WHERE in_outbox = 1 AND collected_at IS NOT NULL;
-- No two transfers share bytes; and removing a payload asks whether a transfer names it.
CREATE UNIQUE INDEX transfer_payload ON transfer (payload);
-- What was collected and still has its bytes, by when that was.
CREATE INDEX transfer_kept ON transfer (collected_at) WHERE state = 'collected';
-- What its recipient threw away unread.
CREATE INDEX transfer_discarded ON transfer (ended_at) WHERE state = 'discarded' AND payload IS NOT NULL;
-- What has ended and still has a key that opens its name, or all of it: a returned file is its sender's for a while.
CREATE INDEX transfer_ended ON transfer (ended_at)
    WHERE state IN ('recalled', 'returned', 'superseded', 'expired') AND payload IS NOT NULL;

-- What the operator did to a file when something had gone wrong, and why: both offices are told.
CREATE TABLE incident (
    transfer  INTEGER PRIMARY KEY REFERENCES transfer (id),
    kind      TEXT NOT NULL CHECK (kind IN ('held', 'returned', 'reported')),
    sender    TEXT NOT NULL,
    recipient TEXT NOT NULL,
    at        INTEGER NOT NULL,
    reason    TEXT NOT NULL
) STRICT;

CREATE INDEX incident_sender ON incident (sender, at);
CREATE INDEX incident_recipient ON incident (recipient, at);

-- What is held at this moment; the reasons stand in history.
INSERT INTO incident (transfer, kind, sender, recipient, at, reason)
SELECT t.id, 'held', t.sender, t.recipient, coalesce(e.at, t.accepted_at), coalesce(e.detail, '')
FROM transfer AS t
LEFT JOIN event AS e ON e.id = (SELECT max(h.id) FROM event AS h WHERE h.transfer = t.id AND h.kind = 'held')
WHERE t.state = 'accepted' AND t.shelf = 'none';
