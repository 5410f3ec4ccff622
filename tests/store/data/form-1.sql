BEGIN TRANSACTION;
CREATE TABLE attempt (
    path_key BLOB PRIMARY KEY,
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
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
INSERT INTO "certificate" VALUES('SHA256:ca',178512687,'0178512687 178512687','SHA256:key','',1785425400000000,1785598200000000,1785511800000000,NULL,'');
INSERT INTO "certificate" VALUES('SHA256:ca',178515854,'0178515854 178515854','SHA256:key','',1785425400000000,1785598200000000,1785511800000000,NULL,'');
INSERT INTO "certificate" VALUES('SHA256:ca',178529384,'0178529384 178529384','SHA256:key','',1785425400000000,1785598200000000,1785511800000000,NULL,'');
INSERT INTO "certificate" VALUES('SHA256:ca',178536215,'0178536215 178536215','SHA256:key','',1785425400000000,1785598200000000,1785511800000000,NULL,'');
CREATE TABLE certificate_office (
    office         TEXT NOT NULL,
    ca_fingerprint TEXT NOT NULL,
    serial         INTEGER NOT NULL,
    PRIMARY KEY (ca_fingerprint, serial, office),
    FOREIGN KEY (ca_fingerprint, serial) REFERENCES certificate (ca_fingerprint, serial)
) STRICT, WITHOUT ROWID;
INSERT INTO "certificate_office" VALUES('0178512687','SHA256:ca',178512687);
INSERT INTO "certificate_office" VALUES('0178515854','SHA256:ca',178515854);
INSERT INTO "certificate_office" VALUES('0178529384','SHA256:ca',178529384);
INSERT INTO "certificate_office" VALUES('0178536215','SHA256:ca',178536215);
CREATE TABLE chunk (
    id     INTEGER PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;
INSERT INTO "chunk" VALUES(1048576,X'1BE8A5E740BD054F0778D58646A1FCC9E64188AC998DD23B21A734C4B88307C631C9ED');
INSERT INTO "chunk" VALUES(2097152,X'100BB067665E52BC93AFA4E378C15C0A78FAFD48C75B0829F5BDCE236FBAD4E41F636ECC32');
INSERT INTO "chunk" VALUES(4194304,X'20644A7C55DE205C3FC12352ED0A43529E68A99A420C5D1147BFA71462E73416BF5D');
INSERT INTO "chunk" VALUES(5242880,X'9A7D432BE898338ACBFFCD06C93F9BE230B1E452BAC6FE74C6ECADAB0A2E99C5881F6E4756');
INSERT INTO "chunk" VALUES(6291456,X'E327941C4D43FBE308452A033F016EA7D9B81132F988835A3C45B743183D00C254');
CREATE TABLE event (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    actor    TEXT NOT NULL,                 -- an office number, or the operator's login name
    office   TEXT,
    transfer INTEGER,
    detail   TEXT NOT NULL
) STRICT;
INSERT INTO "event" VALUES(1,1785511800000000,'office.added','test','0178515854',NULL,'');
INSERT INTO "event" VALUES(2,1785511800000000,'office.added','test','0178529384',NULL,'');
INSERT INTO "event" VALUES(3,1785511800000000,'office.added','test','0178512687',NULL,'');
INSERT INTO "event" VALUES(4,1785511800000000,'office.added','test','0178536215',NULL,'');
INSERT INTO "event" VALUES(5,1785511800000000,'certificate.issued','test','0178515854',NULL,'178515854');
INSERT INTO "event" VALUES(6,1785511800000000,'certificate.issued','test','0178529384',NULL,'178529384');
INSERT INTO "event" VALUES(7,1785511800000000,'certificate.issued','test','0178512687',NULL,'178512687');
INSERT INTO "event" VALUES(8,1785511800000000,'certificate.issued','test','0178536215',NULL,'178536215');
INSERT INTO "event" VALUES(9,1785511800000000,'accepted','0178515854','0178529384',1,'');
INSERT INTO "event" VALUES(10,1785511800000000,'accepted','0178515854','0178529384',2,'');
INSERT INTO "event" VALUES(11,1785511801000000,'collected','0178529384','0178515854',2,'178529384');
INSERT INTO "event" VALUES(12,1785511800000000,'accepted','0178515854','0178529384',3,'');
INSERT INTO "event" VALUES(13,1785511801000000,'recalled','0178515854','0178529384',3,'178515854');
INSERT INTO "event" VALUES(14,1785511800000000,'accepted','0178515854','0178529384',4,'');
INSERT INTO "event" VALUES(15,1785511800000000,'accepted','0178515854','0178529384',5,'');
CREATE TABLE folder (
    office TEXT NOT NULL,
    folder TEXT NOT NULL,
    PRIMARY KEY (office, folder)
) STRICT, WITHOUT ROWID;
INSERT INTO "folder" VALUES('0178515854','0178529384');
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('register_version',5);
INSERT INTO "meta" VALUES('schema_version',1);
CREATE TABLE office (
    number        TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    prefecture    TEXT NOT NULL,
    service_types TEXT NOT NULL,            -- codes joined by '|'
    status        TEXT NOT NULL CHECK (status IN ('active', 'suspended')),
    added_at      INTEGER NOT NULL,
    changed_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "office" VALUES('0178512687','みほん 0178512687','北海道','11','active',1785511800000000,1785511800000000);
INSERT INTO "office" VALUES('0178515854','みほん 0178515854','北海道','11','active',1785511800000000,1785511800000000);
INSERT INTO "office" VALUES('0178529384','みほん 0178529384','北海道','11','active',1785511800000000,1785511800000000);
INSERT INTO "office" VALUES('0178536215','休止','北海道','11','suspended',1785511800000000,1785511800000000);
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
INSERT INTO "partial" VALUES(X'7206814C8539F825D88CE5E996599A26','0178515854','',6,X'E46E940C77054E358886EB1FE39B3AC1E45E544B0358236819A383D2F7FDCBC15737C21DA4ADA333A99E4782FA2863050A7CB7CA8E5B90985CF120A1',X'000D9BEC4C2CF13E997478FEF065BDD66C9FC84CCF7ACB0F2FB929D48A8A7DC0FE8D0DACF93A7787CFA47AF1F2044A46FDD6DEB18768812ADF33A8055C9619F0BA664E344BD39375D90AFD3A84DB16C9039C8319F2AE3BA3EACBDECDBEF5305BE348EE22BDC443BD8A4CDA',5,0,0,NULL,1785511800000000);
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
INSERT INTO "payload" VALUES(1,X'FB2645BB77FE1359BD81BFD8970BB73D','0178515854',X'0F49C3977334C32C83E6A1F11B62082DEA9998082971725CA836CEE1DA1008CCC203A0410A4F762CF90BFAB99187A0CEFCED76C7C76A0BBF5EDE6C30','m1',7,1,7,NULL,1785511800000000);
INSERT INTO "payload" VALUES(2,X'0A093E104D5009FF2344644BB519B637','0178515854',X'0C3C49A7B9B962F6A8BFD872A490BC037FAE7684E9EE7A32E5DBE004A862993491C5BDFC2721C8B3ACDF5A632C7ADCB6C94365FF0101E818C12C7424','m1',9,1,9,NULL,1785511800000000);
INSERT INTO "payload" VALUES(3,X'AD7BCA5E3DADA94AAA7FC4B1E08487FD','0178515854',X'F6B3A7EAA4E2214085A876A3E1D405AA2968EF7C56E02631A7D254780AE98DC2C9A95018973E95BC2BFBABB1D552E356067DFDB05F8015CC742056F6','m1',10,1,0,NULL,1785511800000000);
INSERT INTO "payload" VALUES(4,X'739DD7EAB2047482BDC7225B9DFB43C9','0178515854',X'F5639685A6E76FE613ADC562143843D03BFA41D9AA76D779CAD5F9C13CC30CDF9A6AA41903F0382E26ED026DDD41B8FF4EE255C205CD9FBA26B1836F','m1',6,1,6,NULL,1785511800000000);
INSERT INTO "payload" VALUES(5,X'F6774FC3F3B50B5B9BB2971614F03566','0178515854',X'8B260C1FE0EC2ADF98492A4C06364D895736585E5DE10740AE92D2FB477D70F63646901826CD48E1A504530469CEAFE5F2BD145ADA9213D4B43EDF97','m1',9,1,9,NULL,1785511800000000);
INSERT INTO "payload" VALUES(6,X'CA1123F1C1E559481B06DF624DAEFA5C','0178515854',NULL,NULL,0,0,5,X'68686868686868686868686868686868',1785511800000000);
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
INSERT INTO "refusal" VALUES(1,'0178515854',X'7309C9DDFB0F1ADB59E4922636513463','content.truncated',X'CE9B7F08397C3114AA9A1EAA165784DCC3C6088932DA9E633D1DCE69656C4C7DF287E26C2518D496FDC9CD547A5D04E884BFFD801455',1785511800000000,1785511800000000,1,'',X'3FC6103F7925BB5852EAA882B1E55DCE',0);
CREATE TABLE served (
    transfer INTEGER PRIMARY KEY REFERENCES transfer (id),
    ranges   TEXT NOT NULL
) STRICT;
INSERT INTO "served" VALUES(5,'[[0, 4]]');
CREATE TABLE stored (
    office TEXT PRIMARY KEY,
    bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "stored" VALUES('0178515854',36);
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
INSERT INTO "transfer" VALUES(1,'0178515854','0178529384','accepted','receive','standard-4.1','UPPLAN','20260701000001','202607',0,'UPPLAN_202607_0178515854_43_0178529384_11_20260701000001.CSV',NULL,'',7,X'80CFA3E7F28DDE4DF64436B652230AFF28D7779116D1369C21EF2BBF37261D71',1,NULL,'SHA256:ca',178515854,'[]',1785511800000000,NULL,NULL,1,X'442630C01ECEA48751B44BC186B782E0',0,NULL,X'240363659DF42BC66701C076B2AEFE84',0,NULL,NULL);
INSERT INTO "transfer" VALUES(2,'0178515854','0178529384','collected','receive','standard-4.1','UPPLAN','20260701000002','202607',0,'UPPLAN_202607_0178515854_43_0178529384_11_20260701000002.CSV',NULL,'',9,X'8FF79C0B90366225120A836324D29FF77309FBC9CE55DF84E3346D415032B0F4',2,NULL,'SHA256:ca',178515854,'[]',1785511800000000,1785511801000000,NULL,1,X'32DF54F1D2D70FC14D4FDC54C2F2350F',0,NULL,X'997218F9C22C3924927E2E6B24F0BD67',0,NULL,NULL);
INSERT INTO "transfer" VALUES(3,'0178515854','0178529384','recalled','none','standard-4.1','UPPLAN','20260701000003','202607',0,'UPPLAN_202607_0178515854_43_0178529384_11_20260701000003.CSV',NULL,'',10,X'889E5F437CE5F237712A5485B2E9388C1306B32C63200FB4BC502DA16C8FF025',3,NULL,'SHA256:ca',178515854,'[]',1785511800000000,NULL,1785511801000000,0,X'0424D91514D8E0C32419FFCD8F8BE9E3',3,NULL,X'B59A880B5EC901FD2191DD4049510763',3,NULL,X'03E11C5012D37EE8D192F43A34ECD04A');
INSERT INTO "transfer" VALUES(4,'0178515854','0178529384','accepted','receive','folder','PDF','','',1,NULL,X'549994A1A0538E06EB1CF0B0BEE5A5F73C8C3C393E047AF8FED643003F93DF2D9EA44AC91522','0178515854_20260801003000_',6,X'24AB53A2BB6E64717CC73D6D014F92E6995A6BEA27FF9614D6DDEA26A59AC2FC',4,NULL,'SHA256:ca',178515854,'[]',1785511800000000,NULL,NULL,1,X'B67269B67E64C39B690ACD6E9C26E8C4',0,NULL,X'D813A6038B1270A861B840F8A0C535A4',0,NULL,NULL);
INSERT INTO "transfer" VALUES(5,'0178515854','0178529384','accepted','receive','standard-4.1','UPPLAN','20260701000004','202607',0,'UPPLAN_202607_0178515854_43_0178529384_11_20260701000004.CSV',NULL,'',9,X'BFD29C8B51DBC579D6076B6621C9B7AC86FD3464655261E84DB7917A41AFAB04',5,NULL,'SHA256:ca',178515854,'[]',1785511800000000,NULL,NULL,1,X'AB5A3592E3FED8A59E2D78A3A6EEF372',0,NULL,X'2C35E7E84A13CBE07D5EFF99826C6DAC',0,NULL,NULL);
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
CREATE INDEX office_prefecture ON office (prefecture, number);
CREATE INDEX certificate_serial ON certificate (serial);
CREATE INDEX certificate_of_office ON certificate_office (office);
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
CREATE UNIQUE INDEX transfer_identity ON transfer (identity_key, released);
CREATE UNIQUE INDEX transfer_delivered ON transfer (delivered_key, withdrawn);
CREATE INDEX transfer_shelf ON transfer (recipient, shelf, sender, serial, id);
CREATE INDEX transfer_new ON transfer (recipient, sender, serial, id) WHERE state = 'accepted' AND shelf = 'receive';
CREATE INDEX transfer_outbox ON transfer (sender, in_outbox, id);
CREATE INDEX transfer_recalled ON transfer (sender, id) WHERE recall_key IS NOT NULL;
CREATE UNIQUE INDEX transfer_recall ON transfer (recall_key) WHERE recall_key IS NOT NULL;
CREATE INDEX transfer_ended ON transfer (ended_at) WHERE state IN ('recalled', 'superseded') AND payload IS NOT NULL;
CREATE INDEX transfer_leaving ON transfer (collected_at) WHERE in_outbox = 1 AND collected_at IS NOT NULL;
CREATE UNIQUE INDEX transfer_payload ON transfer (payload);
CREATE INDEX partial_office ON partial (office, folder);
CREATE INDEX partial_touched ON partial (touched_at);
CREATE INDEX refusal_office ON refusal (office, last_at);
CREATE INDEX refusal_path ON refusal (path_key, last_at);
CREATE INDEX refusal_note ON refusal (office, folder, last_at) WHERE has_note = 1;
CREATE INDEX attempt_at ON attempt (at);
CREATE INDEX event_transfer ON event (transfer) WHERE transfer IS NOT NULL;
CREATE TRIGGER event_is_append_only_update BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER event_is_append_only_delete BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER register_office_changed AFTER UPDATE OF status, service_types, name ON office
BEGIN UPDATE meta SET value = value + 1 WHERE key = 'register_version'; END;
CREATE TRIGGER register_certificate_issued AFTER INSERT ON certificate
BEGIN UPDATE meta SET value = value + 1 WHERE key = 'register_version'; END;
CREATE TRIGGER register_certificate_changed AFTER UPDATE ON certificate
BEGIN UPDATE meta SET value = value + 1 WHERE key = 'register_version'; END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('event',15);
INSERT INTO "sqlite_sequence" VALUES('payload',6);
INSERT INTO "sqlite_sequence" VALUES('transfer',5);
INSERT INTO "sqlite_sequence" VALUES('refusal',1);
COMMIT;
