-- Who logged in with which software, by month.

-- *month* is Japan's (2026-11); *software* is what the client's program called itself, without what all say alike.
CREATE TABLE login_month (
    month    TEXT NOT NULL,
    office   TEXT NOT NULL,
    software TEXT NOT NULL,
    logins   INTEGER NOT NULL CHECK (logins > 0),
    PRIMARY KEY (office, month, software)
) STRICT, WITHOUT ROWID;
