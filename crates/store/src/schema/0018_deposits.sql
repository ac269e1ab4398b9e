CREATE TABLE deposit_address (
  account_id {uuid} NOT NULL,
  xpub text NOT NULL,
  idx bigint NOT NULL CONSTRAINT deposit_address_idx UNIQUE,
  address text NOT NULL CONSTRAINT deposit_address_address UNIQUE,
  created_at bigint NOT NULL,
  PRIMARY KEY (account_id, xpub)
);
CREATE TABLE chain_state (
  chain_id bigint PRIMARY KEY,
  version bigint NOT NULL,
  state text NOT NULL,
  read_to bigint NOT NULL,
  safe bigint,
  finalized bigint,
  updated_at bigint NOT NULL
);
CREATE TABLE deposit (
  id {uuid} PRIMARY KEY,
  chain_id bigint NOT NULL,
  name text NOT NULL CONSTRAINT deposit_name UNIQUE,
  account_id {uuid} NOT NULL,
  status smallint NOT NULL,
  supported boolean NOT NULL,
  payer text NOT NULL,
  base_units text NOT NULL,
  amount bigint NOT NULL,
  block_number bigint NOT NULL,
  block_hash text NOT NULL,
  log_index bigint NOT NULL,
  credits bigint NOT NULL DEFAULT 0,
  topup_id {uuid},
  seen_at bigint NOT NULL,
  credited_at bigint
);
CREATE INDEX deposit_account ON deposit (account_id, seen_at, id);
CREATE INDEX deposit_block ON deposit (chain_id, block_number);
CREATE INDEX deposit_open ON deposit (chain_id, block_number, id) WHERE status IN (0, 1)
