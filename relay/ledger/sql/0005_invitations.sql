-- Invitations to a first certificate: an office shows the secret once, over its own key.

CREATE TABLE invitation (
    id             TEXT PRIMARY KEY,
    digest         BLOB NOT NULL CHECK (length(digest) = 32),
    offices        TEXT NOT NULL,           -- numbers joined by '|'
    label          TEXT NOT NULL,
    valid_seconds  INTEGER NOT NULL,        -- of the certificate
    made_at        INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    wrong          INTEGER NOT NULL DEFAULT 0,
    used_at        INTEGER,
    cancelled_at   INTEGER,
    ca_fingerprint TEXT,                    -- the certificate that came of it
    serial         INTEGER,
    CHECK ((used_at IS NULL) = (serial IS NULL)),
    CHECK (used_at IS NULL OR cancelled_at IS NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX invitation_made ON invitation (made_at);
