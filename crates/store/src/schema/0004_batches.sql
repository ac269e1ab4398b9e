ALTER TABLE batch ADD COLUMN chore smallint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN steward {uuid};
ALTER TABLE batch ADD COLUMN rank smallint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN inline boolean NOT NULL DEFAULT true;
ALTER TABLE batch ADD COLUMN endpoint smallint;
ALTER TABLE batch ADD COLUMN model text;
ALTER TABLE batch ADD COLUMN input_file {uuid};
ALTER TABLE batch ADD COLUMN output_file {uuid};
ALTER TABLE batch ADD COLUMN error_file {uuid};
ALTER TABLE batch ADD COLUMN loaded bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN loaded_bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN expired bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN ending smallint;
ALTER TABLE batch ADD COLUMN faults text;
ALTER TABLE batch ADD COLUMN metadata text;
ALTER TABLE batch ADD COLUMN window_hours smallint;
ALTER TABLE batch ADD COLUMN expires_at bigint;
ALTER TABLE batch ADD COLUMN output_seconds bigint;
ALTER TABLE batch ADD COLUMN max_cost_nano bigint;
ALTER TABLE batch ADD COLUMN blocked_until bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN input_tokens bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN cached_tokens bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN output_tokens bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN cost_nano bigint NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN ending_at bigint;
ALTER TABLE batch ADD COLUMN finalizing_at bigint;
ALTER TABLE batch ADD COLUMN sweep_at bigint;
UPDATE batch SET rank = priority, loaded = total;
UPDATE batch SET ending = 0, ending_at = finished_at WHERE status = 4;
UPDATE batch SET sweep_at = finished_at + 2592000000000 WHERE finished_at IS NOT NULL;
CREATE INDEX batch_ready ON batch (rank, account_id, id) WHERE status IN (0, 1);
CREATE INDEX batch_chore ON batch (id) WHERE chore <> 0;
CREATE INDEX batch_due ON batch (expires_at) WHERE expires_at IS NOT NULL AND status IN (0, 1, 6);
CREATE INDEX batch_sweep ON batch (sweep_at) WHERE sweep_at IS NOT NULL;
CREATE INDEX batch_input ON batch (input_file) WHERE input_file IS NOT NULL;
ALTER TABLE task ADD COLUMN seq bigint;
ALTER TABLE task ADD COLUMN result_head bigint;
ALTER TABLE task ADD COLUMN error_status smallint;
ALTER TABLE task ADD COLUMN error_kind text;
ALTER TABLE task ADD COLUMN error_param text;
ALTER TABLE task ADD COLUMN cached_tokens bigint;
UPDATE task SET seq = (SELECT count(*) FROM task o WHERE o.batch_id = task.batch_id AND o.idx <= task.idx AND o.state >= 2)
WHERE state >= 2;
UPDATE batch SET
cost_nano = coalesce((SELECT CAST(sum(t.cost_nano) AS bigint) FROM task t WHERE t.batch_id = batch.id), 0),
input_tokens = coalesce((SELECT CAST(sum(t.input_tokens) AS bigint) FROM task t WHERE t.batch_id = batch.id), 0),
output_tokens = coalesce((SELECT CAST(sum(t.output_tokens) AS bigint) FROM task t WHERE t.batch_id = batch.id), 0);
DROP INDEX task_ready;
ALTER TABLE task DROP COLUMN priority;
CREATE INDEX task_ready ON task (batch_id, not_before, idx) WHERE state = 0;
CREATE UNIQUE INDEX task_seq ON task (batch_id, seq) WHERE seq IS NOT NULL
