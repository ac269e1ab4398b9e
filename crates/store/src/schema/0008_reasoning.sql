ALTER TABLE batch ADD COLUMN reasoning_tokens bigint NOT NULL DEFAULT 0
