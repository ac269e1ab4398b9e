#!/usr/bin/env bash
# Blobs in a bucket: a batch from a file with an upstream that answers at once, on PyPI's moto and on a folder in turn.
# Tasks a second of both, how many objects the results became, and how long it takes to read them.
#
#   bench/s3.sh [sqlite|postgres]        SQLite without it; SIZE=40000 BATCHES=3 for other sizes
source "$(dirname "$0")/rig.sh"
: "${SIZE:=40000}" "${BATCHES:=3}" "${ANSWER_TOKENS:=8}"
# Nothing is pinned: what the upstream, moto and PostgreSQL take of the machine is taken from the server.
GATEWAY_CORES=0-$((CORES - 1)) LOAD_CORES=0-$((CORES - 1)) MOTO_PORT=19995 KIND=${1:-sqlite}
MOTO=http://127.0.0.1:$MOTO_PORT
build
machine
[ -x bench/out/moto/bin/moto_server ] || {
  python3 -m venv bench/out/moto
  bench/out/moto/bin/pip install --quiet --disable-pip-version-check --constraint tests/requirements.txt 'moto[s3]' flask flask-cors
}
start_sim
bench/out/moto/bin/moto_server -H 127.0.0.1 -p $MOTO_PORT >"$RUN/moto.out" 2>"$RUN/moto.log" &
MOTO_PID=$!; pids+=("$MOTO_PID")
until_answers $MOTO/moto-api/ "$MOTO_PID"
curl -fsS -X PUT -o /dev/null $MOTO/batchin
export AWS_ENDPOINT_URL=$MOTO AWS_ALLOW_HTTP=true AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench

now() { date +%s.%N; }
api() { curl -fsS -H "Authorization: Bearer $KEY" "$@"; }
field() { python3 -c "import json,sys; print(json.load(sys.stdin)$1)"; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { print b - a }'; }
python3 - "$SIZE" >"$RUN/input.jsonl" <<'PY'
import json, sys
for i in range(int(sys.argv[1])):
    body = {"model": "instant", "messages": [{"role": "user", "content": f"Say {i} in words."}], "max_tokens": 64}
    print(json.dumps({"custom_id": f"task-{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}))
PY

one() { # one NAME: one batch from its creation to its end, and its results read in both ways; sets RATE
  local began file id batch output
  file=$(api -F purpose=batch -F file=@"$RUN/input.jsonl" $GATEWAY/openai/v1/files | field '["id"]')
  began=$(now)
  id=$(api -H 'content-type: application/json' $GATEWAY/openai/v1/batches \
    -d '{"input_file_id":"'"$file"'","endpoint":"/v1/chat/completions","completion_window":"24h","priority":"high"}' | field '["id"]')
  until batch=$(api "$GATEWAY/openai/v1/batches/$id"); grep -qE '"status":"(completed|failed)"' <<<"$batch"; do sleep 0.05; done
  RATE=$(awk -v n="$SIZE" -v s="$(since "$began")" 'BEGIN { print n / s }')
  output=$(field '["output_file_id"]' <<<"$batch")
  began=$(now)
  api -o "$RUN/content" "$GATEWAY/openai/v1/files/$output/content"
  since "$began" >>"$RUN/$1.content"
  began=$(now)
  api -o "$RUN/results" "$GATEWAY/v1/batches/${id#batch_}/results"
  since "$began" >>"$RUN/$1.results"
  python3 - "$SIZE" "$RUN/content" "$RUN/results" <<'PY'
import json, sys
for path in sys.argv[2:]:
    ids = [json.loads(line)["custom_id"] for line in open(path)]
    assert len(ids) == len(set(ids)) == int(sys.argv[1]), (path, len(ids))
PY
}

on() { # on folder|bucket: a server of its own for one batch
  local written
  if [ "$1" = bucket ]; then export BATCHIN_BLOBS__URL=s3://batchin/run-$RANDOM$RANDOM; else unset BATCHIN_BLOBS__URL; fi
  # A database knows its blobs: a fresh one each time.
  if [ "$KIND" = postgres ]; then start_postgres; fi
  start_gateway "${POSTGRES_URL:-}"
  written=$(objects_written)
  one "$1"
  if [ "$1" = bucket ]; then
    written=$(($(objects_written) - written))
    say $((SIZE / (written > 0 ? written : 1))) >>"$RUN/written"
    curl -fsS "$MOTO/batchin?list-type=2&prefix=${BATCHIN_BLOBS__URL#s3://batchin/}/results/" | grep -o '<Key>' | wc -l >>"$RUN/left"
  fi
  batchin ledger check
  [ "$(usage_requests)" -eq "$SIZE" ]
  end "$GATEWAY_PID"
}

objects_written() { grep -cE '"PUT /batchin/[^"]*/results/[^"?]* HTTP' "$RUN/moto.log" || true; }

say "a batch of $SIZE from a file, upstream answers at once with $ANSWER_TOKENS tokens, $KIND; blobs on moto and in a folder in turn:"
for _ in $(seq "$BATCHES"); do
  on bucket; bucket=$RATE
  on folder
  say "$bucket $RATE" >>"$RUN/rates"
done
numbers "  tasks a second, from creation to end, on moto" /s "  in a folder" <"$RUN/rates"
numbers "  results of one object while the batch ran" results <"$RUN/written"
numbers "  objects once it had ended" objects <"$RUN/left"
numbers "  reading the output file, on moto" s "  in a folder" < <(paste -d' ' "$RUN/bucket.content" "$RUN/folder.content")
numbers "  reading the results by task, on moto" s "  in a folder" < <(paste -d' ' "$RUN/bucket.results" "$RUN/folder.results")
