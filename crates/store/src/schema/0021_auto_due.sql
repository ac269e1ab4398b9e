CREATE INDEX topup_automatic ON topup (account_id) WHERE source = 1 AND status IN (0, 1)
