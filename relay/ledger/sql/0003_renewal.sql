-- Certificates remember what they were renewed from, and keys can be revoked for good.

ALTER TABLE certificate ADD COLUMN parent_ca TEXT;
ALTER TABLE certificate ADD COLUMN parent_serial INTEGER;
ALTER TABLE certificate ADD COLUMN name TEXT NOT NULL DEFAULT '';           -- of its file in certificate/, without -cert.pub
ALTER TABLE certificate ADD COLUMN line TEXT NOT NULL DEFAULT '';           -- the certificate itself; '' where it was not kept
ALTER TABLE certificate ADD COLUMN revoke_cause TEXT NOT NULL DEFAULT '';

CREATE INDEX certificate_parent ON certificate (parent_ca, parent_serial) WHERE parent_serial IS NOT NULL;
CREATE INDEX certificate_key ON certificate (key_fingerprint);
CREATE INDEX certificate_key_id ON certificate (key_id);
CREATE INDEX certificate_revoked ON certificate (revoked_at) WHERE revoked_at IS NOT NULL;

-- Keys that no certificate is issued for any more, whoever asks.
CREATE TABLE revoked_key (
    key_fingerprint TEXT PRIMARY KEY,
    revoked_at      INTEGER NOT NULL,
    cause           TEXT NOT NULL,
    reason          TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER register_key_revoked AFTER INSERT ON revoked_key
BEGIN UPDATE meta SET value = value + 1 WHERE key = 'register_version'; END;
