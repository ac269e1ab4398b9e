ALTER TABLE topup ADD COLUMN customer text;
ALTER TABLE topup ADD COLUMN method text;
CREATE TABLE auto_topup (
  account_id {uuid} PRIMARY KEY,
  enabled boolean NOT NULL,
  threshold bigint NOT NULL,
  amount bigint NOT NULL,
  ceiling bigint NOT NULL,
  setup {uuid},
  setup_session text,
  customer text,
  method text,
  shown text,
  stopped text,
  changed_at bigint NOT NULL
);
CREATE UNIQUE INDEX auto_topup_setup ON auto_topup (setup) WHERE setup IS NOT NULL;
CREATE INDEX auto_topup_enabled ON auto_topup (account_id) WHERE enabled
