CREATE TABLE file (
  id {uuid} PRIMARY KEY,
  account_id {uuid} NOT NULL,
  purpose smallint NOT NULL,
  filename text NOT NULL,
  bytes bigint NOT NULL,
  state smallint NOT NULL,
  content smallint NOT NULL,
  blob text NOT NULL,
  created_at bigint NOT NULL,
  expires_at bigint,
  deleted_at bigint
);
CREATE INDEX file_account ON file (account_id, id);
CREATE INDEX file_purpose ON file (account_id, purpose, id);
CREATE INDEX file_expiry ON file (expires_at, id) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX file_deleted ON file (deleted_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX file_unfinished ON file (created_at, id) WHERE state = 0 AND deleted_at IS NULL;
