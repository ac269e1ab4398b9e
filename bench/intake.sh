#!/usr/bin/env bash
# Taking in a file of a million lines: upload, check of every line, tasks; lines a second and the server's memory. Nothing
# of it runs, since its model's server is not there.
#
#   bench/intake.sh [sqlite|postgres]    both without it; LINES_OF_FILE=100000 for a shorter one
source "$(dirname "$0")/rig.sh"
: "${LINES_OF_FILE:=1000000}"
GATEWAY_CORES=0-$((CORES - 1)) LOAD_CORES=0-$((CORES - 1))
build
machine
python3 - "$LINES_OF_FILE" >"$RUN/input.jsonl" <<'PY'
import json, sys
for i in range(int(sys.argv[1])):
    body = {"model": "absent", "messages": [{"role": "user", "content": f"Say {i} in words. " + "Be brief. " * 20}], "max_tokens": 64}
    print(json.dumps({"custom_id": f"task-{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}))
PY

now() { date +%s.%N; }
api() { curl -fsS -H "Authorization: Bearer $KEY" "$@"; }
field() { python3 -c "import json,sys; print(json.load(sys.stdin)$1)"; }
since() { awk -v a="$1" -v b="$2" -v n="$LINES_OF_FILE" 'BEGIN { printf "%.1f s, %.0f lines/s", b - a, n / (b - a) }'; }

measure() { # measure NAME [DATABASE_URL]
  local idle began uploaded checked loaded file id
  start_gateway "${2:-}"
  sleep 2
  idle=$(rss_kb "$GATEWAY_PID")
  say "a file of $LINES_OF_FILE lines, $(($(stat -c %s "$RUN/input.jsonl") / 1000000)) MB, $1:"
  began=$(now)
  file=$(api -F purpose=batch -F file=@"$RUN/input.jsonl" $GATEWAY/openai/v1/files | field '["id"]')
  uploaded=$(now)
  id=$(api -H 'content-type: application/json' $GATEWAY/openai/v1/batches \
    -d '{"input_file_id":"'"$file"'","endpoint":"/v1/chat/completions","completion_window":"24h","priority":"fill"}' | field '["id"]')
  until api "$GATEWAY/openai/v1/batches/$id" | grep -q '"status":"in_progress"'; do sleep 0.1; done
  checked=$(now)
  until [ "$(api "$GATEWAY/v1/batches/$id?limit=1&after=$((LINES_OF_FILE - 2))" | field '["tasks"].__len__()')" = 1 ]; do sleep 0.2; done
  loaded=$(now)
  say "  upload: $(since "$began" "$uploaded")"
  say "  check of every line: $(since "$uploaded" "$checked")"
  say "  tasks made of them: $(since "$checked" "$loaded")"
  say "  all together: $(since "$began" "$loaded")"
  say "  memory: $((idle / 1024)) MB idle, $(($(awk '/VmHWM/ { print $2 }' "/proc/$GATEWAY_PID/status") / 1024)) MB at most"
  end "$GATEWAY_PID"
}

case ${1:-both} in sqlite | both) measure sqlite ;; esac
case ${1:-both} in postgres | both) start_postgres; measure postgres "$POSTGRES_URL" ;; esac
