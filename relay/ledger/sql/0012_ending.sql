-- Offices that close or change their number: from when, until when they may still log in, and what follows them.

-- A CHECK can only be changed by making its table anew; who refers to it does so by its name, which stays.
CREATE TABLE office_anew (
    number        TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    prefecture    TEXT NOT NULL,
    service_types TEXT NOT NULL,            -- codes joined by '|'
    status        TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'closed', 'moved')),
    added_at      INTEGER NOT NULL,
    changed_at    INTEGER NOT NULL,
    ends_at       INTEGER,                  -- from when it is closed or has another number; planned while active
    until_at      INTEGER,                  -- until when it may still log in
    successor     TEXT REFERENCES office (number),  -- its new number
    end_reason    TEXT NOT NULL DEFAULT '',
    CHECK ((ends_at IS NULL) = (until_at IS NULL)),
    CHECK (until_at >= ends_at),
    CHECK (successor IS NULL OR (ends_at IS NOT NULL AND successor <> number)),
    CHECK (status <> 'closed' OR (ends_at IS NOT NULL AND successor IS NULL)),
    CHECK (status <> 'moved' OR successor IS NOT NULL)
) STRICT, WITHOUT ROWID;

INSERT INTO office_anew (number, name, prefecture, service_types, status, added_at, changed_at)
SELECT number, name, prefecture, service_types, status, added_at, changed_at FROM office;

DROP TABLE office;
ALTER TABLE office_anew RENAME TO office;

CREATE INDEX office_prefecture ON office (prefecture, number);
-- The numbers that an office had before.
CREATE INDEX office_successor ON office (successor) WHERE successor IS NOT NULL;
-- Whose day is to come, and what is still to be done about those whose day has come.
CREATE INDEX office_ending ON office (ends_at) WHERE ends_at IS NOT NULL;

CREATE TRIGGER register_office_changed
AFTER UPDATE OF status, service_types, name, ends_at, until_at, successor ON office
BEGIN UPDATE meta SET value = value + 1 WHERE key = 'register_version'; END;

-- A notice about the end of an office, and which other offices read it: those that exchanged files with it.
ALTER TABLE notice ADD COLUMN about TEXT;
CREATE INDEX notice_about ON notice (about) WHERE about IS NOT NULL;

CREATE TABLE notice_audience (
    notice INTEGER NOT NULL REFERENCES notice (id) ON DELETE CASCADE,
    office TEXT NOT NULL,
    PRIMARY KEY (notice, office)
) STRICT, WITHOUT ROWID;
