CREATE TABLE video_job (
  id {uuid} PRIMARY KEY,
  account_id {uuid} NOT NULL,
  key_id {uuid},
  request_id {uuid} NOT NULL,
  model text NOT NULL,
  prompt text NOT NULL,
  seconds bigint NOT NULL,
  width bigint NOT NULL,
  height bigint NOT NULL,
  status smallint NOT NULL,
  progress bigint NOT NULL DEFAULT 0,
  node_id {uuid},
  epoch bigint NOT NULL DEFAULT 0,
  not_before bigint NOT NULL,
  tries bigint NOT NULL DEFAULT 0,
  upstream text,
  remote text,
  submitted_at bigint,
  blocked text,
  error_code text,
  error_message text,
  blob text,
  bytes bigint,
  delivered_ms bigint,
  cost_nano bigint NOT NULL DEFAULT 0,
  created_at bigint NOT NULL,
  finished_at bigint,
  expires_at bigint
);
CREATE INDEX video_job_account ON video_job (account_id, id);
CREATE INDEX video_job_ready ON video_job (not_before, id) WHERE status IN (0, 1) AND node_id IS NULL;
CREATE INDEX video_job_node ON video_job (node_id, account_id) WHERE node_id IS NOT NULL;
CREATE INDEX video_job_left ON video_job (id) WHERE status IN (3, 4) AND remote IS NOT NULL;
CREATE INDEX video_job_expiry ON video_job (expires_at, id) WHERE expires_at IS NOT NULL
