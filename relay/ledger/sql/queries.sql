-- Every statement of the ledger, by name.  Rows are read by position; rows.py knows the order.

-- name: find_office
SELECT number, name, prefecture, service_types, status, ends_at, until_at, successor, end_reason FROM office WHERE number = ?;

-- name: list_offices
SELECT number, name, prefecture, service_types, status, ends_at, until_at, successor, end_reason FROM office
WHERE number > :after AND (:status IS NULL OR status = :status) AND (:prefecture IS NULL OR prefecture = :prefecture)
ORDER BY number LIMIT :limit;

-- name: count_offices
SELECT status, count(*) FROM office GROUP BY status;

-- name: insert_office
INSERT INTO office (number, name, prefecture, service_types, status, added_at, changed_at)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: update_office
UPDATE office SET name = ?, prefecture = ?, service_types = ?, status = ?, changed_at = ? WHERE number = ?;

-- name: update_office_status
UPDATE office SET status = ?, changed_at = ? WHERE number = ?;

-- name: former_numbers
SELECT number FROM office WHERE successor = ? AND status = 'moved' ORDER BY number;

-- name: successor_of
SELECT successor FROM office WHERE number = ? AND status = 'moved';

-- name: plan_end
UPDATE office SET ends_at = ?, until_at = ?, successor = ?, end_reason = ?, changed_at = ? WHERE number = ?;

-- name: end_office
UPDATE office SET status = ?, until_at = ?, changed_at = ? WHERE number = ?;

-- name: reopen_office
UPDATE office SET status = ?, ends_at = NULL, until_at = NULL, successor = NULL, end_reason = '', changed_at = ?
WHERE number = ?;

-- name: list_due_ends
-- A number that is suspended changes once it is let in again.
SELECT number FROM office
WHERE ends_at <= ? AND (status = 'active' OR (status = 'suspended' AND successor IS NULL)) ORDER BY ends_at;

-- name: foresee_ended
SELECT sum(ends_at <= :before), NULL, min(ends_at) FROM office
WHERE ends_at IS NOT NULL AND (status = 'active' OR (status = 'suspended' AND successor IS NULL));

-- name: list_stranded
-- What is held waits for the operator, wherever it was sent.
-- CROSS JOIN: SQLite would look through all that waits for anybody.
SELECT t.id FROM office AS o INDEXED BY office_ending CROSS JOIN transfer AS t INDEXED BY transfer_new
WHERE o.ends_at <= ?1 AND o.status = 'closed' AND o.until_at <= ?1
  AND t.recipient = o.number AND t.state = 'accepted' AND t.shelf = 'receive' LIMIT ?2;

-- name: foresee_stranded
-- At offices, too, that end in the same round; one that is suspended gets no time to collect.
WITH gone (number, until_at) AS (
    SELECT number, iif(status = 'suspended', ends_at, until_at) FROM office WHERE ends_at <= :before AND successor IS NULL)
SELECT sum(g.until_at <= :before), sum(iif(g.until_at <= :before, t.size_bytes, 0)), min(g.until_at)
FROM gone AS g CROSS JOIN transfer AS t INDEXED BY transfer_new
WHERE t.recipient = g.number AND t.state = 'accepted' AND t.shelf = 'receive' AND t.accepted_at >= :least;

-- name: cancel_invitations_of
UPDATE invitation SET cancelled_at = ?1 WHERE offices = ?2 AND used_at IS NULL AND cancelled_at IS NULL;

-- name: list_partners
SELECT sender FROM transfer WHERE recipient = ?1 AND accepted_at >= ?2
UNION SELECT recipient FROM transfer WHERE sender = ?1 AND accepted_at >= ?2;

-- name: holdings
SELECT (SELECT count(*) FROM transfer WHERE recipient = ?1 AND state = 'accepted'),
    (SELECT count(*) FROM transfer WHERE sender = ?1 AND state = 'accepted'),
    (SELECT count(*) FROM partial WHERE office = ?1),
    (SELECT count(*) FROM certificate_office AS o JOIN certificate AS c USING (ca_fingerprint, serial)
     WHERE o.office = ?1 AND c.revoked_at IS NULL AND c.valid_before > ?2),
    (SELECT count(*) FROM invitation WHERE offices = ?1 AND used_at IS NULL AND cancelled_at IS NULL AND expires_at > ?2),
    EXISTS (SELECT 1 FROM transfer WHERE sender = ?1) OR EXISTS (SELECT 1 FROM transfer WHERE recipient = ?1)
        OR EXISTS (SELECT 1 FROM login_month WHERE office = ?1);

-- name: put_audience
INSERT OR IGNORE INTO notice_audience (notice, office) VALUES (?, ?);

-- name: delete_notices_about
DELETE FROM notice WHERE about = ?;

-- name: list_active_numbers
SELECT number FROM office WHERE status = 'active';

-- name: insert_certificate
INSERT INTO certificate (ca_fingerprint, serial, key_id, key_fingerprint, label, valid_after, valid_before, issued_at,
    parent_ca, parent_serial, name, line, kind)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_certificate_office
INSERT OR IGNORE INTO certificate_office (office, ca_fingerprint, serial) VALUES (?, ?, ?);

-- name: find_certificate
SELECT {certificate} WHERE c.ca_fingerprint = ? AND c.serial = ?;

-- name: list_certificates
SELECT {certificate} WHERE {where} ORDER BY c.issued_at DESC, c.serial LIMIT :limit;

-- name: revoke_certificate
UPDATE certificate SET revoked_at = ?, revoke_cause = ?, revoke_reason = ? WHERE ca_fingerprint = ? AND serial = ?;

-- name: count_valid
SELECT count(*) FROM certificate_office AS o JOIN certificate AS c USING (ca_fingerprint, serial)
WHERE o.office = ?1 AND c.revoked_at IS NULL AND c.valid_before > ?2;

-- name: list_renewed_from
SELECT ca_fingerprint, serial FROM certificate WHERE parent_ca = ? AND parent_serial = ?;

-- name: is_key_used
SELECT 1 FROM certificate WHERE key_fingerprint = ?;

-- name: put_revoked_key
INSERT INTO revoked_key (key_fingerprint, revoked_at, cause, reason) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: is_key_revoked
SELECT 1 FROM revoked_key WHERE key_fingerprint = ?;

-- name: list_revoked_keys
SELECT key_fingerprint FROM revoked_key ORDER BY key_fingerprint;

-- name: register_version
SELECT value FROM meta WHERE key = 'register_version';

-- name: touch_register
UPDATE meta SET value = value + 1 WHERE key = 'register_version';

-- name: insert_event
INSERT INTO event (at, kind, actor, office, transfer, detail) VALUES (?, ?, ?, ?, ?, ?);

-- name: list_events
SELECT id, at, kind, actor, office, transfer, detail FROM event
WHERE {where} ORDER BY id LIMIT :limit;

-- name: insert_payload
INSERT INTO payload (uid, office, wrapped_key, master_id, size_bytes, chunk_count, touched_at, stored_bytes)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?5);

-- name: survey_upload
SELECT s.number, s.name, s.prefecture, s.service_types, s.status, s.ends_at, s.until_at, s.successor, s.end_reason,
       r.number, r.name, r.prefecture, r.service_types, r.status, r.ends_at, r.until_at, r.successor, r.end_reason,
       coalesce((SELECT bytes FROM stored WHERE office = ?1), 0),
       EXISTS (SELECT 1 FROM transfer WHERE identity_key = ?3), EXISTS (SELECT 1 FROM partial WHERE path_key = ?4)
FROM (SELECT 1) LEFT JOIN office AS s ON s.number = ?1 LEFT JOIN office AS r ON r.number = ?2;

-- name: stored_bytes
SELECT bytes FROM stored WHERE office = ?;

-- name: stored_of
SELECT stored_bytes FROM payload WHERE id = ?;

-- name: add_stored
UPDATE payload SET stored_bytes = stored_bytes + ? WHERE id = ?;

-- name: set_stored
UPDATE payload SET stored_bytes = ? WHERE id = ?;

-- name: complete_payload
UPDATE payload SET wrapped_key = ?1, master_id = ?2, size_bytes = ?3, chunk_count = ?4, touched_at = ?5, stored_bytes = ?3
WHERE id = ?6;

-- name: touch_payload
UPDATE payload SET touched_at = ? WHERE id = ? AND uid = ? AND holder IS ? AND wrapped_key IS NULL AND touched_at > 0;

-- name: is_staged
SELECT 1 FROM payload WHERE id = ? AND uid = ? AND holder IS ? AND wrapped_key IS NULL AND touched_at > 0;

-- name: give_up_payload
UPDATE payload SET touched_at = 0
WHERE id = ?1 AND wrapped_key IS NULL AND touched_at < ?2 AND (?3 IS NULL OR holder IS ?3);

-- name: find_payload
SELECT p.id, p.uid, p.wrapped_key, p.size_bytes, p.chunk_count
FROM transfer AS t JOIN payload AS p ON p.id = t.payload
WHERE t.id = ? AND (t.withdrawn = 0 OR t.state = 'returned' OR t.reported_at IS NOT NULL) AND p.wrapped_key IS NOT NULL;

-- name: delete_staged_payload
DELETE FROM payload WHERE id = ? AND wrapped_key IS NULL;

-- name: list_abandoned
-- What a partial names is none of this: it ends by expiring, which its owner is told.
SELECT id FROM payload WHERE wrapped_key IS NULL AND touched_at < ?
  AND NOT EXISTS (SELECT 1 FROM partial AS r WHERE r.payload = payload.id) LIMIT 64;

-- name: put_chunk
INSERT INTO chunk (id, sealed) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed;

-- name: chunk_length
SELECT length(sealed) FROM chunk WHERE id = ?;

-- name: read_chunk
SELECT sealed FROM chunk WHERE id = ?;

-- name: delete_chunks
DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE id BETWEEN ? AND ? LIMIT ?);

-- name: list_chunks
SELECT id FROM chunk WHERE id BETWEEN ? AND ?;

-- name: standing
SELECT (SELECT status FROM office WHERE number = :sender),
       (SELECT status FROM office WHERE number = :recipient),
       (SELECT revoked_at IS NULL FROM certificate WHERE ca_fingerprint = :ca AND serial = :serial);

-- name: insert_transfer
INSERT INTO transfer (sender, recipient, state, shelf, grammar, kind, serial, month, in_folder, name, name_sealed,
    delivered_prefix, size_bytes, sha256, payload, client_mtime, ca_fingerprint, serial_sent_with, findings, accepted_at,
    in_outbox, identity_key, released, delivered_key, withdrawn, staged_from)
VALUES (?, ?, 'accepted', 'receive', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, 0, ?, 0, ?);

-- name: release_identity
UPDATE transfer SET released = id, in_outbox = 0 WHERE id = ?;

-- name: withdraw_transfer
UPDATE transfer SET shelf = 'none', withdrawn = id WHERE id = ?;

-- name: find_by_identity
SELECT {transfer} WHERE t.id = coalesce(
    (SELECT id FROM transfer WHERE identity_key = ?1 AND released = 0),
    (SELECT id FROM transfer WHERE identity_key = ?1 ORDER BY released DESC LIMIT 1));

-- name: find_by_delivered
SELECT {transfer} WHERE t.delivered_key = ? AND t.withdrawn = 0;

-- name: find_transfer
SELECT {transfer} WHERE t.id = ?;

-- name: find_shown
SELECT {transfer} WHERE t.id = ? AND t.withdrawn = 0;

-- name: find_delivered_holder
SELECT id, identity_key, released FROM transfer WHERE delivered_key = ? AND withdrawn = 0;

-- name: mark_collected
UPDATE transfer SET state = ?, collected_at = coalesce(collected_at, ?) WHERE id = ?;

-- name: set_shelf
UPDATE transfer SET shelf = ? WHERE id = ?;

-- name: discard_transfer
UPDATE transfer SET state = ?, shelf = 'done', ended_at = ?, released = id, in_outbox = 0
WHERE id = ?;

-- name: set_completes
UPDATE transfer SET completes = ? WHERE id = ?;

-- name: set_aside
UPDATE transfer SET delivered_prefix = ?, delivered_key = ? WHERE id = ?;

-- name: end_transfer
UPDATE transfer SET state = ?, shelf = 'none', ended_at = ?, recall_key = ?, withdrawn = id, released = id, in_outbox = 0
WHERE id = ?;

-- name: unhold_transfer
UPDATE transfer SET shelf = 'receive', withdrawn = 0, reported_at = NULL WHERE id = ?;

-- name: report_transfer
UPDATE transfer SET reported_at = ?1, shelf = 'none', withdrawn = id WHERE id = ?2;

-- name: put_incident
INSERT INTO incident (transfer, kind, sender, recipient, at, reason) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (transfer) DO UPDATE SET kind = excluded.kind, at = excluded.at, reason = excluded.reason;

-- name: forget_incident
DELETE FROM incident WHERE transfer = ?;

-- name: list_incidents
SELECT i.kind, i.at, i.reason, {transfer} JOIN incident AS i ON i.transfer = t.id
WHERE i.transfer IN (SELECT transfer FROM incident WHERE sender = ?1 AND (at >= ?2 OR kind = 'held')
                     UNION SELECT transfer FROM incident WHERE recipient = ?1 AND (at >= ?2 OR kind = 'held'))
ORDER BY i.at DESC, i.transfer DESC;

-- name: find_name_holder
SELECT id FROM transfer WHERE withdrawn = 0 AND delivered_key = (SELECT delivered_key FROM transfer WHERE id = ?);

-- name: leave_recall
UPDATE transfer SET recall_key = NULL WHERE recall_key = ?;

-- name: find_recalled
SELECT {transfer} WHERE t.recall_key = ? AND t.ended_at > ?;

-- name: list_recalled
SELECT {sent}
WHERE t.sender = :office AND t.recall_key IS NOT NULL AND t.ended_at > :after AND t.id <= :newest AND t.id > :id
ORDER BY t.id LIMIT :limit;

-- name: find_payload_of
SELECT payload FROM transfer WHERE id = ?;

-- name: list_undestroyed
-- Of what was given back to its sender the bytes stay until then; of the rest there should be none.
SELECT t.payload FROM transfer AS t
WHERE t.state IN ('recalled', 'returned', 'superseded', 'expired') AND t.payload IS NOT NULL AND t.ended_at > 0
  AND (t.state <> 'returned' OR t.ended_at < ?)
  AND EXISTS (SELECT 1 FROM chunk AS c WHERE c.id BETWEEN t.payload * 1048576 AND t.payload * 1048576 + 1048575)
LIMIT 64;

-- name: list_readable
SELECT t.id, t.payload FROM transfer AS t
WHERE t.state IN ('recalled', 'returned', 'superseded', 'expired') AND t.payload IS NOT NULL AND t.ended_at < ? LIMIT 64;

-- name: forget_payload
UPDATE transfer SET payload = NULL, recall_key = NULL,
    name_sealed = CASE WHEN name_sealed IS NULL THEN NULL ELSE x'' END WHERE id = ?;

-- name: delete_payload
DELETE FROM payload WHERE id = ?;

-- name: find_served
SELECT ranges FROM served WHERE transfer = ?;

-- name: put_served
INSERT INTO served (transfer, ranges) VALUES (?, ?) ON CONFLICT (transfer) DO UPDATE SET ranges = excluded.ranges;

-- name: delete_served
DELETE FROM served WHERE transfer = ?;

-- name: newest_transfer
SELECT coalesce(max(id), 0) FROM transfer;

-- name: list_shelf
SELECT {delivered}
WHERE t.recipient = :office AND t.shelf = :shelf AND t.id <= :newest
  AND (t.sender, t.serial, t.id) > (:sender, :serial, :id)
ORDER BY t.sender, t.serial, t.id LIMIT :limit;

-- name: list_new
-- INDEXED BY: SQLite would take transfer_shelf and read through everything that was collected.
SELECT {delivered} INDEXED BY transfer_new
WHERE t.state = 'accepted' AND t.shelf = 'receive' AND t.recipient = :office AND t.id <= :newest
  AND (t.sender, t.serial, t.id) > (:sender, :serial, :id)
ORDER BY t.sender, t.serial, t.id LIMIT :limit;

-- name: list_outbox
SELECT {sent}
WHERE t.sender = :office AND t.in_outbox = 1 AND t.in_folder = :in_folder
  AND (:folder IS NULL OR t.recipient = :folder) AND t.id <= :newest AND t.id > :id
  AND t.released = 0 AND (t.collected_at IS NULL OR t.collected_at > :collected_after)
ORDER BY t.id LIMIT :limit;

-- name: list_names
SELECT {name} WHERE t.id IN (SELECT value FROM json_each(?));

-- name: leave_outbox
UPDATE transfer SET in_outbox = 0 WHERE id IN
    (SELECT id FROM transfer WHERE in_outbox = 1 AND collected_at < ? LIMIT ?);

-- name: put_folder
INSERT OR IGNORE INTO folder (office, folder) VALUES (?, ?);

-- name: list_folders
SELECT folder FROM folder WHERE office = ? ORDER BY folder;

-- name: list_transfers
SELECT {transfer} WHERE {where} ORDER BY t.id DESC LIMIT :limit;

-- name: list_transfer_ids
SELECT t.id FROM transfer AS t WHERE {where} ORDER BY t.id DESC;

-- name: list_transfers_by_id
SELECT {transfer} WHERE t.id IN (SELECT value FROM json_each(:ids)) ORDER BY t.id DESC;

-- name: oldest_fact
SELECT min(at) FROM (
    SELECT accepted_at AS at FROM transfer WHERE id IN (
        SELECT min(id) FROM transfer WHERE sender = ?1 AND in_outbox = 0
        UNION ALL SELECT min(id) FROM transfer WHERE sender = ?1 AND in_outbox = 1
        UNION ALL SELECT min(id) FROM transfer WHERE recipient = ?1)
    UNION ALL SELECT min(last_at) FROM refusal WHERE office = ?1);

-- name: insert_unit_part
INSERT INTO unit_part (transfer, sender_service, recipient_service, keys, persons, is_partial, persons_sealed, line_sealed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: list_unit_parts
SELECT u.sender_service, u.recipient_service, u.keys, u.persons, u.is_partial, u.persons_sealed, u.line_sealed,
       k.wrapped_key, k.uid, k.chunk_count, {transfer}
JOIN unit_part AS u ON u.transfer = t.id LEFT JOIN payload AS k ON k.id = t.payload WHERE {where};

-- name: list_first_lines
SELECT t.id, u.line_sealed, k.wrapped_key, k.uid, k.size_bytes, k.chunk_count
FROM transfer AS t JOIN unit_part AS u ON u.transfer = t.id JOIN payload AS k ON k.id = t.payload
WHERE u.line_sealed IS NOT NULL AND {where};

-- name: put_refusal
INSERT INTO refusal (office, refusal_key, code, note_sealed, first_at, last_at, count, folder, path_key, has_note,
    master_id) VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1, ?6, ?7, ?8, ?9)
ON CONFLICT (refusal_key) DO UPDATE SET last_at = excluded.last_at, count = count + 1, folder = excluded.folder,
    path_key = excluded.path_key, has_note = excluded.has_note
RETURNING count;

-- name: list_notes
SELECT code, note_sealed, first_at, last_at, count, id FROM refusal
WHERE office = ? AND folder = ? AND has_note = 1 AND last_at > ? ORDER BY last_at DESC LIMIT ?;

-- name: find_note
SELECT code, note_sealed, first_at, last_at, count, id FROM refusal
WHERE path_key = ? AND has_note = 1 AND last_at > ? ORDER BY last_at DESC LIMIT 1;

-- name: clear_notes
UPDATE refusal SET has_note = 0 WHERE path_key IN (?, ?) AND has_note = 1;

-- name: put_attempt
INSERT INTO attempt (path_key, at) VALUES (?, ?) ON CONFLICT (path_key) DO UPDATE SET at = excluded.at;

-- name: was_attempted
SELECT EXISTS (SELECT 1 FROM refusal WHERE path_key = :path AND last_at >= :since)
    OR EXISTS (SELECT 1 FROM attempt WHERE path_key = :path AND at >= :since);

-- name: forget_attempts
DELETE FROM attempt WHERE at < ?;

-- name: was_refused
SELECT 1 FROM refusal WHERE refusal_key = ? AND first_at < ?;

-- name: list_refusals
SELECT code, note_sealed, first_at, last_at, count, id FROM refusal WHERE office = ?1 AND last_at >= ?2 AND (?3 IS NULL OR last_at < ?3)
ORDER BY last_at DESC LIMIT ?4;

-- name: set_sent_mtime
UPDATE transfer SET client_mtime = ? WHERE id = ?;

-- name: set_holder
UPDATE payload SET holder = ? WHERE id = ?;

-- name: touch_held
UPDATE payload SET touched_at = ?1, holder = ?3
WHERE id = ?2 AND (holder IS NULL OR holder = ?3) AND wrapped_key IS NULL AND touched_at > 0;

-- name: take_over
UPDATE payload SET holder = ?, touched_at = ? WHERE id = ? AND wrapped_key IS NULL AND touched_at > 0;

-- name: put_partial
INSERT INTO partial (path_key, office, folder, payload, key_wrapped, note_sealed, size_bytes, is_closed, looks_whole,
    client_mtime, touched_at, master_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path_key) DO UPDATE SET payload = excluded.payload, key_wrapped = excluded.key_wrapped,
    master_id = excluded.master_id,
    note_sealed = excluded.note_sealed, size_bytes = excluded.size_bytes, is_closed = excluded.is_closed,
    looks_whole = excluded.looks_whole, client_mtime = excluded.client_mtime, touched_at = excluded.touched_at;

-- name: find_partial
SELECT {partial} WHERE r.path_key = ?;

-- name: list_partials
SELECT {partial} WHERE r.office = ? AND r.folder = ?;

-- name: count_partials
SELECT count(*) FROM partial WHERE office = ?;

-- name: list_expired
-- One that was taken up again lives as long as bytes arrive.
SELECT {partial} WHERE r.touched_at < ?1 AND p.touched_at < ?1 LIMIT ?2;

-- name: delete_partial
DELETE FROM partial WHERE path_key = ?;

-- name: delete_expired
DELETE FROM partial WHERE path_key = ?1 AND touched_at < ?2
  AND (SELECT touched_at FROM payload WHERE id = partial.payload) < ?2;

-- name: delete_partial_of
DELETE FROM partial WHERE payload = ?;

-- name: amend_partial
UPDATE partial SET size_bytes = coalesce(?2, size_bytes), client_mtime = coalesce(?3, client_mtime)
WHERE path_key = ?1 AND coalesce(?2, 0) <= size_bytes;

-- name: note_renamed
UPDATE transfer SET staged_from = ? WHERE id = ?;

-- name: find_staged_from
SELECT 1 FROM transfer WHERE id = ? AND staged_from = ?;

-- name: master_in_use
SELECT id FROM master_key WHERE ended_at IS NULL;

-- name: any_master_of_payload
SELECT master_id FROM payload WHERE master_id IS NOT NULL LIMIT 1;

-- name: put_master
INSERT INTO master_key (id, since) VALUES (?, ?);

-- name: end_master
UPDATE master_key SET ended_at = ? WHERE ended_at IS NULL;

-- name: destroy_masters
UPDATE master_key SET destroyed_at = ? WHERE ended_at IS NOT NULL AND destroyed_at IS NULL;

-- name: list_masters
SELECT id, since, ended_at, destroyed_at FROM master_key ORDER BY since;

-- name: payloads_of_others
SELECT id, wrapped_key, uid, size_bytes, chunk_count FROM payload
WHERE id > ?1 AND wrapped_key IS NOT NULL AND master_id <> ?2 ORDER BY id LIMIT ?3;

-- name: rewrap_payload
UPDATE payload SET wrapped_key = ?, master_id = ? WHERE id = ?;

-- name: partials_of_others
SELECT r.payload, r.key_wrapped, r.note_sealed, p.uid FROM partial AS r JOIN payload AS p ON p.id = r.payload
WHERE r.payload > ?1 AND r.master_id <> ?2 ORDER BY r.payload LIMIT ?3;

-- name: rewrap_partial
UPDATE partial SET key_wrapped = ?, note_sealed = ?, master_id = ? WHERE payload = ?;

-- name: refusals_of_others
SELECT id, note_sealed FROM refusal WHERE id > ?1 AND master_id <> ?2 ORDER BY id LIMIT ?3;

-- name: reseal_refusal
UPDATE refusal SET note_sealed = ?, master_id = ? WHERE id = ?;

-- name: count_of_others
SELECT (SELECT count(*) FROM payload WHERE wrapped_key IS NOT NULL AND master_id <> ?1)
     + (SELECT count(*) FROM partial WHERE master_id <> ?1) + (SELECT count(*) FROM refusal WHERE master_id <> ?1)
     + (SELECT count(*) FROM mail_address WHERE master_id <> ?1);

-- name: mail_addresses_of_others
SELECT id, sealed FROM mail_address WHERE id > ?1 AND master_id <> ?2 ORDER BY id LIMIT ?3;

-- name: reseal_mail_address
UPDATE mail_address SET sealed = ?, master_id = ? WHERE id = ?;

-- name: find_refusal
SELECT code, note_sealed, first_at, last_at, count, id FROM refusal WHERE id = ? AND office = ?;

-- name: list_receipted
-- All that an office sent or was sent is looked through, in a thread: an index by time would cost at every upload.
SELECT id FROM transfer WHERE sender = ?1 AND ((accepted_at >= ?2 AND accepted_at < ?3)
    OR (collected_at >= ?2 AND collected_at < ?3) OR (ended_at >= ?2 AND ended_at < ?3))
UNION SELECT id FROM transfer WHERE recipient = ?1 AND ((accepted_at >= ?2 AND accepted_at < ?3)
    OR (collected_at >= ?2 AND collected_at < ?3) OR (ended_at >= ?2 AND ended_at < ?3)) ORDER BY 1;

-- name: list_receipt_months
-- In Japan, nine hours ahead; times are microseconds.
WITH moment (at) AS (
    SELECT accepted_at FROM transfer WHERE sender = ?1 UNION ALL SELECT accepted_at FROM transfer WHERE recipient = ?1
    UNION ALL SELECT collected_at FROM transfer WHERE sender = ?1
    UNION ALL SELECT collected_at FROM transfer WHERE recipient = ?1
    UNION ALL SELECT ended_at FROM transfer WHERE sender = ?1
    UNION ALL SELECT ended_at FROM transfer WHERE recipient = ?1
    UNION ALL SELECT first_at FROM refusal WHERE office = ?1
) SELECT DISTINCT strftime('%Y-%m', at / 1000000 + 32400, 'unixepoch') FROM moment WHERE at IS NOT NULL ORDER BY 1;

-- name: insert_batch
INSERT INTO audit_batch (id, writer, number, first_event, last_event, at, key_id, previous, own_previous, head, mac)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: newest_batch
SELECT id, writer, number, first_event, last_event, at, key_id, previous, own_previous, head, mac
FROM audit_batch WHERE id = (SELECT max(id) FROM audit_batch);

-- name: find_batch
SELECT id, writer, number, first_event, last_event, at, key_id, previous, own_previous, head, mac
FROM audit_batch WHERE id = ?;

-- name: list_batches
SELECT id, writer, number, first_event, last_event, at, key_id, previous, own_previous, head, mac
FROM audit_batch WHERE id > ? AND id <= ? ORDER BY id LIMIT ?;

-- name: list_event_rows
SELECT id, at, kind, actor, office, transfer, detail FROM event WHERE id > ? AND id <= ? ORDER BY id LIMIT ?;

-- name: find_event_row
SELECT id, at, kind, actor, office, transfer, detail FROM event WHERE id = ?;

-- name: list_newest_history
SELECT id, at, kind, actor, office, transfer, detail FROM event WHERE {where} ORDER BY id DESC LIMIT :limit;

-- name: list_oldest_history
SELECT id, at, kind, actor, office, transfer, detail FROM event WHERE {where} ORDER BY id LIMIT :limit;

-- name: newest_of_history
SELECT (SELECT coalesce(max(id), 0) FROM audit_batch), (SELECT coalesce(max(id), 0) FROM event);

-- name: insert_invitation
INSERT INTO invitation (id, digest, offices, label, valid_seconds, made_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: find_invitation
SELECT id, digest, offices, label, valid_seconds, made_at, expires_at, wrong, used_at, cancelled_at, ca_fingerprint, serial
FROM invitation WHERE id = ?;

-- name: list_invitations
SELECT id, digest, offices, label, valid_seconds, made_at, expires_at, wrong, used_at, cancelled_at, ca_fingerprint, serial
FROM invitation ORDER BY made_at DESC;

-- name: cancel_invitation
UPDATE invitation SET cancelled_at = ? WHERE id = ?;

-- name: count_wrong_invitation
UPDATE invitation SET wrong = wrong + 1 WHERE id = ?;

-- name: use_invitation
UPDATE invitation SET used_at = ?, ca_fingerprint = ?, serial = ? WHERE id = ?;

-- name: count_login
-- An office whose programs call themselves otherwise at each login fills no more than so many rows a month.
INSERT INTO login_month (month, office, software, logins)
VALUES (:month, :office,
    CASE WHEN (SELECT count(*) FROM login_month WHERE office = :office AND month = :month AND software <> :software) < :most
         THEN :software ELSE 'other' END, 1)
ON CONFLICT (office, month, software) DO UPDATE SET logins = logins + 1;

-- name: waiting_by_age
-- Numbers ascend with the time of acceptance: the index alone tells, and no row is looked up.  Ages are from young to old.
SELECT recipient, sum(id > :b0), sum(id > :b1 AND id <= :b0), sum(id > :b2 AND id <= :b1), sum(id > :b3 AND id <= :b2),
    sum(id > :b4 AND id <= :b3), sum(id <= :b4), min(id)
FROM transfer INDEXED BY transfer_new WHERE state = 'accepted' AND shelf = 'receive' GROUP BY recipient;

-- name: waiting_in_all
SELECT count(*), sum(id > :b0), sum(id > :b1), sum(id > :b2), sum(id > :b3), sum(id > :b4), min(id)
FROM transfer INDEXED BY transfer_new WHERE state = 'accepted' AND shelf = 'receive';

-- name: nearest_accepted
SELECT id, accepted_at FROM transfer WHERE id <= ? ORDER BY id DESC LIMIT 1;

-- name: accepted_times
SELECT id, accepted_at FROM transfer WHERE id IN (SELECT value FROM json_each(?));

-- name: probe_store
-- Changes nothing, but a page is written all the same: a full disk shows.
UPDATE meta SET value = value WHERE key = 'schema_version';

-- name: use_by_prefecture
SELECT o.prefecture, count(*),
    sum(EXISTS (SELECT 1 FROM login_month AS l WHERE l.office = o.number AND l.month >= :since)
        -- Who has only just changed its number is no newcomer.
        OR EXISTS (SELECT 1 FROM office AS f JOIN login_month AS l ON l.office = f.number
                   WHERE f.successor = o.number AND f.status = 'moved' AND l.month >= :since))
FROM office AS o WHERE o.status = 'active' GROUP BY o.prefecture;

-- name: use_by_month
SELECT month, count(DISTINCT office), sum(logins) FROM login_month WHERE month >= :since GROUP BY month;

-- name: transfers_by_month
-- In Japan, nine hours ahead; times are microseconds.
SELECT strftime('%Y-%m', accepted_at / 1000000 + 32400, 'unixepoch'), count(*), sum(collected_at IS NOT NULL),
    sum(size_bytes)
FROM transfer WHERE accepted_at >= :since GROUP BY 1;

-- name: transfers_by_kind
SELECT kind, count(*), sum(collected_at IS NOT NULL), sum(size_bytes), count(DISTINCT sender)
FROM transfer WHERE accepted_at >= :since GROUP BY kind;

-- name: use_by_software
SELECT software, count(DISTINCT office), sum(logins), max(month) FROM login_month WHERE month >= :since GROUP BY software;

-- name: first_listed
SELECT min(at) FROM event
WHERE id > (SELECT coalesce(max(id), 0) FROM event WHERE transfer = :transfer AND kind = 'accepted')
  AND kind = 'listed' AND actor = :office AND CAST(detail AS INTEGER) >= :transfer;

-- name: sent_with
SELECT ca_fingerprint, serial_sent_with FROM transfer WHERE id = ?;

-- name: transfers_of_identity
SELECT id FROM transfer WHERE identity_key = ? ORDER BY id;

-- name: newest_event_at
SELECT max(at) FROM event WHERE kind = ?;

-- name: put_mail_address
INSERT INTO mail_address (office, per, sealed, master_id) VALUES (?, ?, ?, ?)
ON CONFLICT (office) DO UPDATE SET per = excluded.per, sealed = excluded.sealed, master_id = excluded.master_id;

-- name: delete_mail_address
DELETE FROM mail_address WHERE office = ?;

-- name: find_mail_address
SELECT per, sealed FROM mail_address WHERE office = ?;

-- name: queue_mail
-- One row an office and sender, however many files; nothing where the office has no address.
INSERT INTO mail_arrival (office, is_taken, sender, due_at, arrivals)
SELECT ?1, 0, ?2, CASE per WHEN 'day' THEN ?4 ELSE ?3 END, 1 FROM mail_address WHERE office = ?1
ON CONFLICT (office, is_taken, sender) DO UPDATE SET arrivals = arrivals + 1;

-- name: queue_news
-- A line in the mail that says to look at the news: a sender without a number.
INSERT INTO mail_arrival (office, is_taken, sender, due_at, arrivals)
SELECT ?1, 0, '', CASE per WHEN 'day' THEN ?3 ELSE ?2 END, 1 FROM mail_address WHERE office = ?1
ON CONFLICT (office, is_taken, sender) DO UPDATE SET arrivals = arrivals + 1;

-- name: find_due_mail
SELECT office FROM mail WHERE due_at <= ? ORDER BY due_at LIMIT 1;

-- name: find_due_arrivals
SELECT a.office FROM mail_arrival AS a JOIN office AS o ON o.number = a.office
WHERE a.is_taken = 0 AND a.due_at <= ? AND o.status <> 'suspended' AND NOT EXISTS (SELECT 1 FROM mail AS m WHERE m.office = a.office)
ORDER BY a.due_at LIMIT 1;

-- name: open_mail
INSERT INTO mail (office, message_id, made_at, due_at) VALUES (?1, ?2, ?3, ?3);

-- name: take_mail_arrivals
UPDATE mail_arrival SET is_taken = 1 WHERE office = ? AND is_taken = 0;

-- name: try_mail
UPDATE mail SET tries = tries + 1, due_at = ? WHERE office = ?;

-- name: read_mail
SELECT m.message_id, m.made_at, m.tries, o.name, b.sealed FROM mail AS m
JOIN office AS o ON o.number = m.office JOIN mail_address AS b ON b.office = m.office WHERE m.office = ?;

-- name: list_mail_arrivals
SELECT o.name, a.sender, a.arrivals FROM mail_arrival AS a LEFT JOIN office AS o ON o.number = a.sender
WHERE a.office = ? AND a.is_taken = 1 ORDER BY a.sender;

-- name: note_mail_answer
UPDATE mail SET answer = ? WHERE office = ? AND message_id = ?;

-- name: delete_mail
DELETE FROM mail WHERE office = ? AND message_id = ?;

-- name: delete_taken_arrivals
DELETE FROM mail_arrival WHERE office = ? AND is_taken = 1;

-- name: find_stale_mail
SELECT office, message_id FROM mail WHERE made_at < ? ORDER BY made_at LIMIT 1;

-- name: find_stale_arrivals
SELECT office FROM mail_arrival WHERE is_taken = 0 AND due_at < ? ORDER BY due_at LIMIT 1;

-- name: count_mail_arrivals
SELECT coalesce(sum(arrivals), 0) FROM mail_arrival WHERE office = ? AND is_taken = ?;

-- name: delete_waiting_arrivals
DELETE FROM mail_arrival WHERE office = ? AND is_taken = 0;

-- name: list_mail_waiting
SELECT b.office, o.name, b.per, m.tries, m.due_at, m.answer,
    (SELECT coalesce(sum(a.arrivals), 0) FROM mail_arrival AS a WHERE a.office = b.office AND a.is_taken = 1),
    (SELECT coalesce(sum(a.arrivals), 0) FROM mail_arrival AS a WHERE a.office = b.office AND a.is_taken = 0),
    (SELECT min(a.due_at) FROM mail_arrival AS a WHERE a.office = b.office AND a.is_taken = 0)
FROM mail_address AS b JOIN office AS o ON o.number = b.office LEFT JOIN mail AS m ON m.office = b.office
WHERE EXISTS (SELECT 1 FROM mail_arrival AS a WHERE a.office = b.office) ORDER BY b.office;

-- name: foresee_expired
SELECT sum(accepted_at < :before), sum(iif(accepted_at < :before, size_bytes, 0)), min(accepted_at)
FROM transfer INDEXED BY transfer_new WHERE state = 'accepted' AND shelf = 'receive';

-- name: list_uncollected
-- The number, which the index has, spares looking up the row of each that waits.
SELECT id FROM transfer INDEXED BY transfer_new
WHERE state = 'accepted' AND shelf = 'receive' AND id <= ?3 AND accepted_at < ?1 LIMIT ?2;

-- name: foresee_destroyed
SELECT count(*), sum(size_bytes), (SELECT min(collected_at) FROM transfer WHERE state = 'collected')
FROM transfer WHERE state = 'collected' AND collected_at < :before;

-- name: foresee_discarded
SELECT count(*), sum(size_bytes), (SELECT min(ended_at) FROM transfer WHERE state = 'discarded' AND payload IS NOT NULL)
FROM transfer WHERE state = 'discarded' AND payload IS NOT NULL AND ended_at < :before;

-- name: foresee_noticed
SELECT sum(t.accepted_at < :before AND t.accepted_at >= :least),
       sum(iif(t.accepted_at < :before AND t.accepted_at >= :least, t.size_bytes, 0)), min(t.accepted_at)
FROM transfer AS t INDEXED BY transfer_new WHERE t.state = 'accepted' AND t.shelf = 'receive'
  AND NOT EXISTS (SELECT 1 FROM expiry_notice AS n WHERE n.transfer = t.id AND n.tenths >= :tenths);

-- name: foresee_over_notices
SELECT count(DISTINCT n.transfer), NULL, NULL FROM expiry_notice AS n JOIN transfer AS t ON t.id = n.transfer
WHERE t.state <> 'accepted' OR (t.shelf = 'receive' AND t.accepted_at < :before);

-- name: foresee_unfinished
SELECT sum(max(r.touched_at, p.touched_at) < :before),
       sum(iif(max(r.touched_at, p.touched_at) < :before, p.stored_bytes, 0)), min(max(r.touched_at, p.touched_at))
FROM partial AS r JOIN payload AS p ON p.id = r.payload;

-- name: foresee_leftovers
SELECT sum(touched_at < :before), sum(iif(touched_at < :before, stored_bytes, 0)), min(touched_at) FROM payload
WHERE wrapped_key IS NULL AND NOT EXISTS (SELECT 1 FROM partial AS r WHERE r.payload = payload.id);

-- name: foresee_unlisted
SELECT count(*), NULL, (SELECT min(collected_at) FROM transfer WHERE in_outbox = 1 AND collected_at IS NOT NULL)
FROM transfer WHERE in_outbox = 1 AND collected_at < :before AND collected_at >= :least;

-- name: foresee_names
-- Only what was given back to its sender has bytes until then.
SELECT sum(ended_at < :before), sum(iif(state = 'returned' AND ended_at < :before, size_bytes, 0)), min(ended_at)
FROM transfer INDEXED BY transfer_ended
WHERE state IN ('recalled', 'returned', 'superseded', 'expired') AND payload IS NOT NULL;

-- name: foresee_notes
SELECT sum(last_at < :before), NULL, min(last_at) FROM refusal WHERE has_note = 1;

-- name: foresee_refusals
SELECT sum(last_at < :before), NULL, min(last_at) FROM refusal;

-- name: foresee_attempts
SELECT count(*), NULL, (SELECT min(at) FROM attempt) FROM attempt WHERE at < :before;

-- name: put_meta
INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: list_rounds
SELECT key, value FROM meta WHERE key BETWEEN 'housekeeping' AND 'housekeeping~';

-- name: list_collected
SELECT id FROM transfer WHERE state = 'collected' AND collected_at < ? LIMIT ?;

-- name: list_discarded
SELECT id FROM transfer WHERE state = 'discarded' AND payload IS NOT NULL AND ended_at < ? LIMIT ?;

-- name: destroy_transfer
UPDATE transfer SET state = ?, shelf = 'none', ended_at = ?, withdrawn = id, released = id, in_outbox = 0 WHERE id = ?;

-- name: take_from_done
UPDATE transfer SET shelf = 'none', withdrawn = id WHERE id = ?;

-- name: forget_readable
UPDATE unit_part SET persons_sealed = NULL, line_sealed = NULL WHERE transfer = ?;

-- name: give_up_sealed
UPDATE payload SET wrapped_key = NULL, master_id = NULL, stored_bytes = 0, touched_at = 0 WHERE id = ?;

-- name: list_unnoticed
SELECT t.id FROM transfer AS t INDEXED BY transfer_new
WHERE t.state = 'accepted' AND t.shelf = 'receive' AND t.id <= ?3 AND t.accepted_at < ?1
  AND NOT EXISTS (SELECT 1 FROM expiry_notice AS n WHERE n.transfer = t.id AND n.tenths >= ?2);

-- name: put_expiry_notice
INSERT INTO expiry_notice (transfer, tenths, sender, recipient)
SELECT id, ?2, sender, recipient FROM transfer WHERE id = ?1 AND state = 'accepted' ON CONFLICT DO NOTHING;

-- name: list_over_notices
SELECT DISTINCT n.transfer FROM expiry_notice AS n JOIN transfer AS t ON t.id = n.transfer WHERE t.state <> 'accepted';

-- name: forget_expiry_notices
DELETE FROM expiry_notice WHERE transfer = ?;

-- name: list_noticed
SELECT {transfer} WHERE t.state = 'accepted' AND t.shelf = 'receive' AND t.id IN
    (SELECT transfer FROM expiry_notice WHERE sender = ?1 UNION SELECT transfer FROM expiry_notice WHERE recipient = ?1)
ORDER BY t.accepted_at, t.id LIMIT ?2;

-- name: has_noticed
SELECT EXISTS (SELECT 1 FROM expiry_notice AS n JOIN transfer AS t ON t.id = n.transfer
               WHERE n.sender = ?1 AND t.state = 'accepted' AND t.shelf = 'receive')
    OR EXISTS (SELECT 1 FROM expiry_notice AS n JOIN transfer AS t ON t.id = n.transfer
               WHERE n.recipient = ?1 AND t.state = 'accepted' AND t.shelf = 'receive');

-- name: forget_old_notes
UPDATE refusal SET has_note = 0 WHERE has_note = 1 AND last_at < ?;

-- name: list_old_refusals
SELECT id FROM refusal WHERE last_at < ? LIMIT ?;

-- name: delete_refusal
DELETE FROM refusal WHERE id = ? AND last_at < ?;

-- name: insert_notice
INSERT INTO notice (title, text, from_at, until_at, office, prefecture, about) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: list_notices
SELECT id, title, text, from_at, until_at, office, prefecture, about FROM notice ORDER BY from_at DESC, id DESC;

-- name: list_notices_for
SELECT id, title, text, from_at, until_at, office, prefecture, about FROM notice
WHERE from_at <= ?1 AND (until_at IS NULL OR until_at > ?1) AND (office IS NULL OR office = ?2)
  AND (prefecture IS NULL OR prefecture = (SELECT prefecture FROM office WHERE number = ?2))
  AND (about IS NULL OR office IS NOT NULL
       OR EXISTS (SELECT 1 FROM notice_audience AS a WHERE a.notice = notice.id AND a.office = ?2))
ORDER BY from_at DESC, id DESC;

-- name: delete_notice
DELETE FROM notice WHERE id = ?;
