CREATE TABLE agreement (
  name text PRIMARY KEY,
  value text NOT NULL
);
ALTER TABLE node ADD COLUMN prices bigint;
ALTER TABLE batch ADD COLUMN chore_tries bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN chore_after bigint NOT NULL DEFAULT 0;
{sqlite} UPDATE batch SET input_tokens = 9223372036854775807 WHERE typeof(input_tokens) = 'real';
{sqlite} UPDATE batch SET cached_tokens = 9223372036854775807 WHERE typeof(cached_tokens) = 'real';
{sqlite} UPDATE batch SET output_tokens = 9223372036854775807 WHERE typeof(output_tokens) = 'real'
