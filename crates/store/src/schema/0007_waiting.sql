CREATE TABLE batch_model (
  batch_id {uuid} NOT NULL,
  model text NOT NULL,
  PRIMARY KEY (batch_id, model)
);
INSERT INTO batch_model (batch_id, model) SELECT DISTINCT batch_id, model FROM task WHERE state IN (0, 1);
DROP INDEX task_ready;
CREATE INDEX task_ready ON task (batch_id, model, not_before, idx) WHERE state = 0;
DROP INDEX batch_ready;
CREATE INDEX batch_ready ON batch (rank, account_id, id) WHERE status IN (0, 1) AND blocked IS NULL;
CREATE INDEX batch_blocked ON batch (blocked_until) WHERE status IN (0, 1) AND blocked IS NOT NULL;
CREATE INDEX batch_open ON batch (account_id, status) WHERE finished_at IS NULL
