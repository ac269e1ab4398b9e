CREATE TABLE voice (
  account_id {uuid} NOT NULL,
  name text NOT NULL,
  words text NOT NULL,
  consent text NOT NULL,
  content_type text NOT NULL,
  duration_ms bigint NOT NULL,
  sound {bytes} NOT NULL,
  created_at bigint NOT NULL,
  PRIMARY KEY (account_id, name)
)
