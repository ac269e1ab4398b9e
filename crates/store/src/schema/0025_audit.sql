CREATE TABLE audit_log (
  id smallint PRIMARY KEY,
  origin text NOT NULL,
  size bigint NOT NULL,
  root {bytes} NOT NULL,
  checkpoint text,
  checkpoint_size bigint NOT NULL,
  CONSTRAINT audit_log_one CHECK (id = 1),
  CONSTRAINT audit_log_size CHECK (checkpoint_size <= size)
);
CREATE TABLE audit_entry (
  id {uuid} PRIMARY KEY,
  account_id {uuid},
  kind smallint NOT NULL,
  created_at bigint NOT NULL,
  body text NOT NULL,
  key_id text NOT NULL,
  signature {bytes} NOT NULL,
  log_index bigint
);
CREATE UNIQUE INDEX audit_entry_index ON audit_entry (log_index) WHERE log_index IS NOT NULL;
CREATE INDEX audit_entry_waiting ON audit_entry (id) WHERE log_index IS NULL;
CREATE INDEX audit_entry_account ON audit_entry (account_id, created_at, id);
CREATE TABLE audit_tile (
  level smallint NOT NULL,
  idx bigint NOT NULL,
  hashes {bytes} NOT NULL,
  PRIMARY KEY (level, idx)
);
CREATE TABLE audit_key (
  generation integer PRIMARY KEY,
  key_id text NOT NULL CONSTRAINT audit_key_id UNIQUE,
  public {bytes} NOT NULL,
  created_at bigint NOT NULL
)
