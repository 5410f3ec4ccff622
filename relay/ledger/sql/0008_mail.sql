-- Mail to offices about what arrived.  Times as in the first step.

-- Where an office wants to be told.  An address may be a person's: it is sealed under the master key.
CREATE TABLE mail_address (
    id        INTEGER PRIMARY KEY,
    office    TEXT NOT NULL UNIQUE REFERENCES office (number),
    per       TEXT NOT NULL CHECK (per IN ('arrival', 'day')),
    sealed    BLOB NOT NULL,
    master_id TEXT NOT NULL
) STRICT;

-- How many files of whom an office is still to be told of; those that are in its mail already are taken.
CREATE TABLE mail_arrival (
    office   TEXT NOT NULL REFERENCES mail_address (office) ON DELETE CASCADE,
    is_taken INTEGER NOT NULL CHECK (is_taken IN (0, 1)),
    sender   TEXT NOT NULL,
    due_at   INTEGER NOT NULL,
    arrivals INTEGER NOT NULL CHECK (arrivals > 0),
    PRIMARY KEY (office, is_taken, sender)
) STRICT, WITHOUT ROWID;

CREATE INDEX mail_arrival_due ON mail_arrival (is_taken, due_at);

-- The mail that is on its way to an office: one at most.  It keeps its Message-ID until it is taken or given up.
CREATE TABLE mail (
    office     TEXT PRIMARY KEY REFERENCES mail_address (office) ON DELETE CASCADE,
    message_id TEXT NOT NULL UNIQUE,
    made_at    INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,            -- when it is tried (again)
    tries      INTEGER NOT NULL DEFAULT 0,
    answer     TEXT NOT NULL DEFAULT ''     -- the code of the server's last answer, never its text
) STRICT, WITHOUT ROWID;

CREATE INDEX mail_due ON mail (due_at);
CREATE INDEX mail_made ON mail (made_at);
