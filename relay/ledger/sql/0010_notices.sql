-- What offices are told in お知らせ.txt.

-- Both offices were told that a file waits: at half of the time it is kept for, and at nine tenths.  Once each.
CREATE TABLE expiry_notice (
    transfer  INTEGER NOT NULL REFERENCES transfer (id),
    tenths    INTEGER NOT NULL CHECK (tenths IN (5, 9)),
    sender    TEXT NOT NULL,
    recipient TEXT NOT NULL,
    PRIMARY KEY (transfer, tenths)
) STRICT, WITHOUT ROWID;

CREATE INDEX expiry_notice_sender ON expiry_notice (sender, transfer);
CREATE INDEX expiry_notice_recipient ON expiry_notice (recipient, transfer);

-- The operator's own texts: for all offices, one, or those of a prefecture.
CREATE TABLE notice (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    title      TEXT NOT NULL,
    text       TEXT NOT NULL,
    from_at    INTEGER NOT NULL,
    until_at   INTEGER,
    office     TEXT,
    prefecture TEXT,
    CHECK (office IS NULL OR prefecture IS NULL),
    CHECK (until_at IS NULL OR until_at > from_at)
) STRICT;
