-- Certificates of outside CAs (X.509) are known to the register from their first login on.

ALTER TABLE certificate ADD COLUMN kind TEXT NOT NULL DEFAULT 'openssh' CHECK (kind IN ('openssh', 'x509'));
