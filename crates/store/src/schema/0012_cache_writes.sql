ALTER TABLE usage_log ADD COLUMN cache_write_tokens bigint NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN cache_write_tokens bigint;
ALTER TABLE batch ADD COLUMN cache_write_tokens bigint NOT NULL DEFAULT 0
