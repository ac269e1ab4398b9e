CREATE TABLE drained_upstream (
  name text PRIMARY KEY,
  drained_by {uuid},
  drained_at bigint NOT NULL
);
CREATE TABLE drained_calls (
  name text NOT NULL,
  node_id {uuid} NOT NULL,
  drained_at bigint NOT NULL,
  outstanding bigint NOT NULL,
  PRIMARY KEY (name, node_id)
);
CREATE INDEX video_job_upstream ON video_job (upstream) WHERE status IN (0, 1) AND upstream IS NOT NULL
