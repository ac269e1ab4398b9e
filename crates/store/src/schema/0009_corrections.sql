DROP INDEX transfer_grant;
CREATE INDEX transfer_credit ON transfer (account_id, seq) WHERE movement IN (0, 3)
