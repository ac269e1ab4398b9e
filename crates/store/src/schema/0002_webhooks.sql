CREATE TABLE webhook_key (
  one smallint PRIMARY KEY,
  sealed {bytes} NOT NULL,
  CONSTRAINT webhook_key_one CHECK (one = 1)
);
CREATE TABLE webhook_secret (
  account_id {uuid} PRIMARY KEY,
  sealed {bytes} NOT NULL,
  created_at bigint NOT NULL,
  previous {bytes},
  previous_until bigint
);
CREATE TABLE webhook_delivery (
  id {uuid} PRIMARY KEY,
  account_id {uuid} NOT NULL,
  kind smallint NOT NULL,
  subject {uuid} NOT NULL,
  url text NOT NULL,
  endpoint {uuid} NOT NULL,
  state smallint NOT NULL,
  epoch bigint NOT NULL DEFAULT 0,
  node_id {uuid},
  attempts bigint NOT NULL DEFAULT 0,
  tries bigint NOT NULL DEFAULT 0,
  due_at bigint NOT NULL,
  created_at bigint NOT NULL,
  finished_at bigint
);
CREATE INDEX webhook_due ON webhook_delivery (due_at, id, endpoint, account_id) WHERE state = 0;
CREATE INDEX webhook_sending ON webhook_delivery (node_id) WHERE state = 1;
CREATE INDEX webhook_ended ON webhook_delivery (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX webhook_account ON webhook_delivery (account_id, created_at, id);
CREATE TABLE webhook_attempt (
  delivery_id {uuid} NOT NULL,
  number bigint NOT NULL,
  at bigint NOT NULL,
  took_us bigint NOT NULL,
  status integer,
  failure smallint,
  PRIMARY KEY (delivery_id, number)
);
CREATE TABLE webhook_off (
  account_id {uuid} NOT NULL,
  url text NOT NULL,
  since bigint NOT NULL,
  PRIMARY KEY (account_id, url)
);
