CREATE INDEX deposit_fresh ON deposit (chain_id, account_id, id, block_number) WHERE status = 0;
CREATE INDEX deposit_held ON deposit (chain_id, account_id, amount, id) WHERE status = 1;
DROP INDEX deposit_open
