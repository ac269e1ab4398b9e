CREATE TABLE statement_cursor (
  account_id {uuid} PRIMARY KEY,
  seq bigint NOT NULL,
  month bigint NOT NULL,
  balance bigint NOT NULL,
  version bigint NOT NULL DEFAULT 0
);
CREATE TABLE statement_month (
  account_id {uuid} NOT NULL,
  month bigint NOT NULL,
  last_seq bigint NOT NULL,
  closing bigint NOT NULL,
  holder text NOT NULL,
  links text NOT NULL,
  closed_at bigint NOT NULL,
  PRIMARY KEY (account_id, month)
);
CREATE TABLE statement_usage (
  account_id {uuid} NOT NULL,
  month bigint NOT NULL,
  day bigint NOT NULL,
  key_id {uuid} NOT NULL,
  model text NOT NULL,
  price_version bigint NOT NULL,
  requests bigint NOT NULL,
  input_tokens bigint NOT NULL,
  output_tokens bigint NOT NULL,
  charged bigint NOT NULL,
  PRIMARY KEY (account_id, month, day, key_id, model, price_version)
);
CREATE TABLE statement_request (
  account_id {uuid} NOT NULL,
  request_id {uuid} NOT NULL,
  came_at bigint NOT NULL,
  day bigint NOT NULL,
  charged bigint NOT NULL,
  PRIMARY KEY (account_id, request_id)
)
