#!/usr/bin/env bash
# Batches made from files: tasks a second with an upstream that answers at once, every task durable and billed; and whether
# a task costs the same in a batch of a thousand as in one of a hundred thousand.
#
#   bench/batch.sh [sqlite|postgres]     both without it; SIZES="1000 1000000" for other sizes
source "$(dirname "$0")/rig.sh"
: "${SIZES:=1000 10000 100000}" "${BATCHES:=3}" "${ANSWER_TOKENS:=8}"
# Nothing is pinned: what the upstream and PostgreSQL take of the machine is measured and stands beside.
GATEWAY_CORES=0-$((CORES - 1)) LOAD_CORES=0-$((CORES - 1))
build
machine
start_sim

now() { date +%s.%N; }
api() { curl -fsS -H "Authorization: Bearer $KEY" "$@"; }
field() { python3 -c "import json,sys; print(json.load(sys.stdin)$1)"; }

lines() { # lines NUMBER: OpenAI's lines
  python3 - "$1" <<'PY'
import json, sys
for i in range(int(sys.argv[1])):
    body = {"model": "instant", "messages": [{"role": "user", "content": f"Say {i} in words."}], "max_tokens": 64}
    print(json.dumps({"custom_id": f"task-{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}))
PY
}

one() { # one NAME SIZE: one batch from its creation to its end, with both files read
  local began before sim sql=0 file id batch ended
  file=$(api -F purpose=batch -F file=@"$RUN/$2.jsonl" $GATEWAY/openai/v1/files | field '["id"]')
  before=$(cpu_us "$GATEWAY_PID"); sim=$(cpu_us "$SIM_PID"); [ -z "${POSTGRES_PID:-}" ] || sql=$(cpu_us "$POSTGRES_PID")
  began=$(now)
  id=$(api -H 'content-type: application/json' $GATEWAY/openai/v1/batches \
    -d '{"input_file_id":"'"$file"'","endpoint":"/v1/chat/completions","completion_window":"24h","priority":"high"}' | field '["id"]')
  until batch=$(api "$GATEWAY/openai/v1/batches/$id"); grep -qE '"status":"(completed|failed)"' <<<"$batch"; do sleep 0.05; done
  ended=$(now)
  awk -v t="$2" -v b="$began" -v e="$ended" 'BEGIN { print t / (e - b) }' >>"$RUN/$1.$2.rate"
  awk -v t="$2" -v a="$before" -v b="$(cpu_us "$GATEWAY_PID")" 'BEGIN { print (b - a) / t }' >>"$RUN/$1.$2.cpu"
  awk -v t="$2" -v a="$sim" -v b="$(cpu_us "$SIM_PID")" 'BEGIN { print (b - a) / t }' >>"$RUN/$1.$2.sim"
  [ -z "${POSTGRES_PID:-}" ] || awk -v t="$2" -v a="$sql" -v b="$(cpu_us "$POSTGRES_PID")" 'BEGIN { print (b - a) / t }' >>"$RUN/$1.$2.sql"
  api "$GATEWAY/openai/v1/files/$(field '["output_file_id"]' <<<"$batch")/content" | python3 -c '
import json, sys
ids = [json.loads(line)["custom_id"] for line in sys.stdin]
assert len(ids) == len(set(ids)) == int(sys.argv[1]), len(ids)' "$2"
}

measure() { # measure NAME [DATABASE_URL]
  local size charged expected=0
  start_gateway "${2:-}"
  say "batches from files, upstream answers at once with $ANSWER_TOKENS tokens, $1:"
  for size in $SIZES; do
    [ -s "$RUN/$size.jsonl" ] || lines "$size" >"$RUN/$size.jsonl"
    for _ in $(seq "$BATCHES"); do one "$1" "$size"; expected=$((expected + size)); done
    numbers "  $size tasks: tasks a second, from creation to end" /s <"$RUN/$1.$size.rate"
    numbers "  $size tasks: CPU per task" µs <"$RUN/$1.$size.cpu"
    [ ! -s "$RUN/$1.$size.sql" ] || numbers "  $size tasks: PostgreSQL beside it, per task" µs <"$RUN/$1.$size.sql"
    numbers "  $size tasks: the upstream beside it, per task" µs <"$RUN/$1.$size.sim"
  done
  charged=$(usage_requests)
  say "  charged $charged of $expected; memory $(($(rss_kb "$GATEWAY_PID") / 1024)) MB"
  batchin ledger check
  [ "$charged" -eq "$expected" ]
  end "$GATEWAY_PID"
}

case ${1:-both} in sqlite | both) measure sqlite ;; esac
case ${1:-both} in postgres | both) start_postgres; measure postgres "$POSTGRES_URL" ;; esac
