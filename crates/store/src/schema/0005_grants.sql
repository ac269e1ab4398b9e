{postgres} ALTER TABLE transfer DROP CONSTRAINT transfer_reference;
{sqlite} CREATE TABLE moved (
  id {uuid} PRIMARY KEY,
  account_id {uuid} NOT NULL,
  seq bigint,
  movement smallint NOT NULL,
  amount bigint NOT NULL,
  reference text,
  request_id {uuid},
  price_version bigint,
  reason text,
  created_at bigint NOT NULL,
  CONSTRAINT transfer_amount CHECK (amount > 0)
);
{sqlite} INSERT INTO moved (id, account_id, seq, movement, amount, reference, request_id, price_version, reason, created_at)
SELECT id, account_id, seq, movement, amount, reference, request_id, price_version, reason, created_at FROM transfer;
{sqlite} DROP TABLE transfer;
{sqlite} ALTER TABLE moved RENAME TO transfer;
{sqlite} CREATE UNIQUE INDEX transfer_seq ON transfer (account_id, seq);
CREATE UNIQUE INDEX transfer_reference ON transfer (reference) WHERE reference IS NOT NULL;
CREATE INDEX transfer_grant ON transfer (account_id, seq) WHERE movement = 0
