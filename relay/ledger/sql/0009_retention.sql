-- What time does to accepted files: indexes for finding what is due, none of which costs anything at an upload.

-- What was collected and still has its bytes, by when that was.
CREATE INDEX transfer_kept ON transfer (collected_at) WHERE state = 'collected';
-- What its recipient threw away unread.
CREATE INDEX transfer_discarded ON transfer (ended_at) WHERE state = 'discarded' AND payload IS NOT NULL;
-- What has ended and still has a key that opens its name: of expired files as well.
DROP INDEX transfer_ended;
CREATE INDEX transfer_ended ON transfer (ended_at)
    WHERE state IN ('recalled', 'superseded', 'expired') AND payload IS NOT NULL;
