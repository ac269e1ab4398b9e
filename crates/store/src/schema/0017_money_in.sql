ALTER TABLE account ADD COLUMN alert_at bigint;
ALTER TABLE account ADD COLUMN budget_alert smallint;
ALTER TABLE transfer ADD COLUMN topup_id {uuid};
ALTER TABLE transfer ADD COLUMN reverses {uuid};
ALTER TABLE transfer ADD COLUMN actor text;
DROP INDEX transfer_credit;
CREATE INDEX transfer_credit ON transfer (account_id, seq) WHERE movement IN (0, 3, 5, 6, 7, 8, 9, 10, 11);
CREATE TABLE topup (
  id {uuid} PRIMARY KEY,
  account_id {uuid} NOT NULL,
  source smallint NOT NULL,
  status smallint NOT NULL,
  amount bigint NOT NULL,
  session text,
  url text,
  payment text,
  failure text,
  receipt_url text,
  invoice_url text,
  invoice text,
  buyer text,
  created_at bigint NOT NULL,
  completed_at bigint,
  version bigint NOT NULL DEFAULT 0,
  due_at bigint,
  checks bigint NOT NULL DEFAULT 0,
  CONSTRAINT topup_amount CHECK (amount > 0)
);
CREATE INDEX topup_account ON topup (account_id, created_at, id);
CREATE UNIQUE INDEX topup_session ON topup (session) WHERE session IS NOT NULL;
CREATE UNIQUE INDEX topup_payment ON topup (payment) WHERE payment IS NOT NULL;
CREATE INDEX topup_due ON topup (due_at, id) WHERE due_at IS NOT NULL;
CREATE TABLE stripe_event (
  id text PRIMARY KEY,
  kind text NOT NULL,
  body text NOT NULL,
  received_at bigint NOT NULL,
  due_at bigint,
  tries bigint NOT NULL DEFAULT 0,
  outcome text
);
CREATE INDEX stripe_event_due ON stripe_event (due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX stripe_event_done ON stripe_event (received_at) WHERE due_at IS NULL;
CREATE TABLE money_cursor (
  name text PRIMARY KEY,
  value bigint NOT NULL,
  due_at bigint NOT NULL
);
CREATE TABLE alert (
  account_id {uuid} PRIMARY KEY,
  url text,
  email boolean NOT NULL,
  low_nano bigint,
  budget_percent smallint,
  changed_at bigint NOT NULL
);
CREATE TABLE admin_log (
  id {uuid} PRIMARY KEY,
  actor text NOT NULL,
  action text NOT NULL,
  account_id {uuid},
  subject {uuid},
  amount bigint,
  reason text NOT NULL,
  created_at bigint NOT NULL
);
CREATE INDEX admin_log_time ON admin_log (created_at, id)
