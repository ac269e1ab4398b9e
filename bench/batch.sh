#!/usr/bin/env bash
# Batches: tasks a second with an upstream that answers at once; every task durable, billed, ended once.
source "$(dirname "$0")/rig.sh"
: "${TASKS:=5000}"
build
machine
start_sim
python3 - "$TASKS" >"$RUN/batch.json" <<'PY'
import json, sys
task = lambda i: {"custom_id": f"task-{i}", "model": "mock", "request_body": {"messages": [{"role": "user", "content": f"Say {i} in words."}], "max_tokens": 256}}
print(json.dumps({"tasks": [task(i) for i in range(int(sys.argv[1]))]}))
PY

now() { date +%s.%N; }
api() { curl -fsS -H "Authorization: Bearer $KEY" -H 'content-type: application/json' "$@"; }
one() { # one RESULTS: one batch from the request to its end
  local began before sql=0 accepted id counts
  before=$(cpu_us "$GATEWAY_PID"); [ -z "${POSTGRES_PID:-}" ] || sql=$(cpu_us "$POSTGRES_PID")
  began=$(now)
  id=$(api -d @"$RUN/batch.json" $GATEWAY/v1/batches | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
  accepted=$(now)
  until counts=$(api "$GATEWAY/v1/batches?limit=1" | python3 -c '
import json, sys
b = json.load(sys.stdin)[0]
print(b["completed_tasks"], b["failed_tasks"]); sys.exit(b["status"] not in ("completed", "failed"))'); do sleep 0.1; done
  awk -v t="$TASKS" -v b="$began" -v e="$(now)" 'BEGIN { print t / (e - b) }' >>"$1.rate"
  awk -v b="$began" -v a="$accepted" 'BEGIN { print a - b }' >>"$1.intake"
  awk -v t="$TASKS" -v a="$before" -v b="$(cpu_us "$GATEWAY_PID")" 'BEGIN { print (b - a) / t }' >>"$1.cpu"
  [ -z "${POSTGRES_PID:-}" ] || awk -v t="$TASKS" -v a="$sql" -v b="$(cpu_us "$POSTGRES_PID")" 'BEGIN { print (b - a) / t }' >>"$1.sql"
  [ "$counts" = "$TASKS 0" ] || { say "  completed and failed: $counts"; exit 1; }
  api "$GATEWAY/v1/batches/$id/results" | python3 -c '
import json, sys
ids = [json.loads(line)["custom_id"] for line in sys.stdin]
assert len(ids) == len(set(ids)) == int(sys.argv[1]), len(ids)' "$TASKS"
}
measure() { # measure NAME [DATABASE_URL]
  start_gateway "${2:-}"
  for _ in $(seq "${BATCHES:-3}"); do one "$RUN/$1"; done
  local charged; charged=$(usage_requests)
  say "batches of $TASKS tasks, upstream answers at once, $1:"
  numbers "  tasks a second, from the request to the end" /s <"$RUN/$1.rate"
  numbers "  of it, taking the batch in" s <"$RUN/$1.intake"
  numbers "  CPU per task" µs <"$RUN/$1.cpu"
  [ ! -s "$RUN/$1.sql" ] || numbers "  PostgreSQL beside it, per task" µs <"$RUN/$1.sql"
  say "  charged $charged of $((TASKS * ${BATCHES:-3}))"
  batchin ledger check
  [ "$charged" -eq $((TASKS * ${BATCHES:-3})) ]
  end "$GATEWAY_PID"
}
measure sqlite
start_postgres
measure postgres "$POSTGRES_URL"
