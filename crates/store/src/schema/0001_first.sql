CREATE TABLE account (
  id {uuid} PRIMARY KEY,
  posted_debit bigint NOT NULL DEFAULT 0,
  posted_credit bigint NOT NULL DEFAULT 0,
  pending_debit bigint NOT NULL DEFAULT 0,
  last_seq bigint NOT NULL DEFAULT 0,
  frozen boolean NOT NULL DEFAULT false,
  CONSTRAINT account_rule CHECK (
    posted_debit >= 0 AND pending_debit >= 0 AND (frozen OR posted_debit + pending_debit <= posted_credit))
);
CREATE TABLE app_user (
  id {uuid} PRIMARY KEY,
  email text NOT NULL CONSTRAINT app_user_email UNIQUE,
  name text NOT NULL,
  password_hash text NOT NULL,
  role smallint NOT NULL,
  disabled boolean NOT NULL DEFAULT false,
  created_at bigint NOT NULL
);
CREATE TABLE session (
  hash {bytes} PRIMARY KEY,
  user_id {uuid} NOT NULL,
  created_at bigint NOT NULL,
  expires_at bigint NOT NULL
);
CREATE INDEX session_of_user ON session (user_id);
CREATE TABLE api_key (
  id {uuid} PRIMARY KEY,
  account_id {uuid} NOT NULL,
  hash {bytes} NOT NULL CONSTRAINT api_key_hash UNIQUE,
  last4 text NOT NULL,
  name text,
  rate_limit_rpm bigint NOT NULL,
  budget_nano bigint,
  is_active boolean NOT NULL,
  deleted_at bigint,
  created_at bigint NOT NULL,
  last_used_at bigint
);
CREATE INDEX api_key_account ON api_key (account_id, created_at);
CREATE TABLE node (
  id {uuid} PRIMARY KEY,
  epoch bigint NOT NULL,
  expires_at bigint NOT NULL,
  alive boolean NOT NULL
);
CREATE TABLE purse (
  kind smallint NOT NULL,
  owner {uuid} NOT NULL,
  win bigint NOT NULL,
  spent bigint NOT NULL DEFAULT 0,
  leased bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, owner, win),
  CONSTRAINT purse_rule CHECK (spent >= 0 AND leased >= 0)
);
CREATE TABLE lease (
  kind smallint NOT NULL,
  owner {uuid} NOT NULL,
  win bigint NOT NULL,
  node_id {uuid} NOT NULL,
  outstanding bigint NOT NULL,
  recall boolean NOT NULL DEFAULT false,
  last_grant {uuid},
  last_amount bigint,
  PRIMARY KEY (kind, owner, win, node_id),
  CONSTRAINT lease_rule CHECK (outstanding >= 0)
);
CREATE INDEX lease_node ON lease (node_id);
CREATE TABLE transfer (
  id {uuid} PRIMARY KEY,
  account_id {uuid} NOT NULL,
  seq bigint,
  movement smallint NOT NULL,
  amount bigint NOT NULL,
  reference text CONSTRAINT transfer_reference UNIQUE,
  request_id {uuid},
  price_version bigint,
  reason text,
  created_at bigint NOT NULL,
  CONSTRAINT transfer_amount CHECK (amount > 0)
);
CREATE UNIQUE INDEX transfer_seq ON transfer (account_id, seq);
CREATE TABLE usage_log (
  request_id {uuid} PRIMARY KEY,
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
  ttft_us bigint
);
CREATE INDEX usage_account ON usage_log (account_id, created_at, request_id);
CREATE TABLE price_list (
  version bigint PRIMARY KEY,
  fingerprint text NOT NULL,
  body text NOT NULL,
  created_at bigint NOT NULL
);
CREATE TABLE idempotency (
  account_id {uuid} NOT NULL,
  idem_key text NOT NULL,
  route text NOT NULL,
  fingerprint {bytes} NOT NULL,
  node_id {uuid} NOT NULL,
  node_epoch bigint NOT NULL,
  status integer,
  content_type text,
  body {bytes},
  created_at bigint NOT NULL,
  PRIMARY KEY (account_id, idem_key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);
CREATE TABLE batch (
  id {uuid} PRIMARY KEY,
  account_id {uuid} NOT NULL,
  key_id {uuid},
  priority smallint NOT NULL,
  status smallint NOT NULL,
  total bigint NOT NULL,
  completed bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  cancelled bigint NOT NULL DEFAULT 0,
  blocked text,
  webhook_url text,
  input_blob text NOT NULL,
  created_at bigint NOT NULL,
  started_at bigint,
  finished_at bigint
);
CREATE INDEX batch_account ON batch (account_id, created_at);
CREATE TABLE task (
  id {uuid} PRIMARY KEY,
  batch_id {uuid} NOT NULL,
  idx bigint NOT NULL,
  account_id {uuid} NOT NULL,
  custom_id text NOT NULL,
  model text NOT NULL,
  endpoint smallint NOT NULL,
  priority smallint NOT NULL,
  state smallint NOT NULL,
  epoch bigint NOT NULL DEFAULT 0,
  node_id {uuid},
  attempts bigint NOT NULL DEFAULT 0,
  not_before bigint NOT NULL,
  body_offset bigint NOT NULL,
  body_len bigint NOT NULL,
  result_blob text,
  result_offset bigint,
  result_len bigint,
  error_code text,
  error_message text,
  input_tokens bigint,
  output_tokens bigint,
  cost_nano bigint,
  finished_at bigint
);
CREATE UNIQUE INDEX task_batch ON task (batch_id, idx);
CREATE INDEX task_ready ON task (priority, not_before, id) WHERE state = 0;
CREATE INDEX task_running ON task (node_id) WHERE state = 1;
