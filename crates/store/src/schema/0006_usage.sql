{postgres} ALTER TABLE usage_log DROP CONSTRAINT usage_log_pkey;
{postgres} ALTER TABLE usage_log ADD PRIMARY KEY (account_id, created_at, request_id);
{postgres} DROP INDEX usage_account;
{sqlite} CREATE TABLE moved (
  request_id {uuid} NOT NULL,
  account_id {uuid} NOT NULL,
  key_id {uuid},
  model text NOT NULL,
  endpoint smallint NOT NULL,
  class smallint NOT NULL,
  batch_id {uuid},
  task_id {uuid},
  input_tokens bigint NOT NULL,
  output_tokens bigint NOT NULL,
  cached_tokens bigint NOT NULL,
  cost_nano bigint NOT NULL,
  price_version bigint NOT NULL,
  outcome smallint NOT NULL,
  estimated boolean NOT NULL,
  created_at bigint NOT NULL,
  latency_us bigint NOT NULL,
  ttft_us bigint,
  PRIMARY KEY (account_id, created_at, request_id)
) WITHOUT ROWID;
{sqlite} INSERT INTO moved (request_id, account_id, key_id, model, endpoint, class, batch_id, task_id, input_tokens, output_tokens,
  cached_tokens, cost_nano, price_version, outcome, estimated, created_at, latency_us, ttft_us)
SELECT request_id, account_id, key_id, model, endpoint, class, batch_id, task_id, input_tokens, output_tokens, cached_tokens,
  cost_nano, price_version, outcome, estimated, created_at, latency_us, ttft_us FROM usage_log
ORDER BY account_id, created_at, request_id;
{sqlite} DROP TABLE usage_log;
{sqlite} ALTER TABLE moved RENAME TO usage_log
