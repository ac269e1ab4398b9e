#!/usr/bin/env bash
# The embedded engine through the whole gateway against llama.cpp's own server: tokens a second over HTTP, 8 and 16
# requests at once, the same weights (Q8_0), threads, slots, context, prompts and limits, in interleaved blocks of one run.
# Who goes first changes with every block. AT_ONCE="1 8 16" measures other numbers of requests.
source "$(dirname "$0")/rig.sh"
: "${MAX_TOKENS:=128}" "${ROUNDS:=4}" "${THREADS:=$CORES}"
LLAMA_PORT=19996
model=smollm2-135m-instruct
build
llama=$(bench/llama-server.sh)
weights=$PWD/bench/out/weights
mkdir -p "$weights"
"$BATCHIN" --data "$weights" models pull $model >/dev/null 2>"$RUN/pull.log" || { cat "$RUN/pull.log" >&2; exit 1; }
file=$(ls "$weights"/models/$model.gguf)
machine
say "weights: $(basename "$(readlink -f "$file")"), $(stat -Lc %s "$file") bytes; llama-server: $("$llama" --version 2>&1 | grep -m1 version)"

prompts() { # prompts BLOCK MODEL: no two of them begin alike, so that neither side can answer from a cache
  python3 - "$1" "$2" "$MAX_TOKENS" "$((ROUNDS * 16))" <<'PY'
import json, random, sys
block, model, most, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
random.seed(block)
things = "the sea,a lighthouse,winter,bread,a railway,the desert,an old clock,honey,a volcano,chess,the violin,paper,a bridge,salt,the moon,a harbour".split(",")
for i in range(count):
    a, b, c = random.sample(things, 3)
    text = f"{random.randint(10, 99)} things are known about {a}, and fewer about {b}. Write a long story for children in which {a}, {b} and {c} meet, and tell in detail what each of them says, one after another, until they part as friends."
    print(json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": most, "temperature": 0}))
PY
}
rate() { # rate URL MODEL AT_ONCE BLOCK: tokens a second of complete answers
  prompts "$4" "$2" >"$RUN/prompts"
  "$LOAD" "$1/v1/chat/completions" --bodies "$RUN/prompts" --connections "$3" --requests $(($3 * ROUNDS)) --seconds 600 --tokens >"$RUN/report"
  python3 - "$RUN/report" <<'PY'
import json, sys
r = json.load(open(sys.argv[1]))
assert r["ok"] and r["tokens"] and not r["broken"] + r["status_other"] + r["status_503"] + r["status_429"], r
print(r["tokens"] / r["seconds"], r["tokens"] / r["ok"])
PY
}
start_engine() { # start_engine SLOTS: the gateway with its engine, on all cores
  DATABASE="" DATA=$(mktemp -d "$RUN/data.XXXXXX")
  ln -s "$weights/models" "$DATA/models"
  printf '[server]\nlisten = "127.0.0.1:%s"\n[engine]\nslots = %s\nthreads = %s\ncontext = 16384\n' $GATEWAY_PORT "$1" "$THREADS" >"$DATA/batchin.toml"
  "$BATCHIN" --config "$DATA/batchin.toml" --data "$DATA" serve >"$RUN/gateway.out" 2>"$RUN/gateway.log" &
  GATEWAY_PID=$!; pids+=("$GATEWAY_PID")
  until_answers $GATEWAY/healthz "$GATEWAY_PID"
  batchin user create bench@example.org --name Bench >/dev/null
  batchin credits grant bench@example.org 100000000 --reason bench >/dev/null
  KEY=$(batchin key create bench@example.org --name bench --rpm 10000000 --budget-cents 90000000); export KEY
  until curl -fsS -H "Authorization: Bearer $KEY" $GATEWAY/v1/models/$model | grep -q '"status":"always_on"'; do sleep 0.1; done
}
for at_once in ${AT_ONCE:-8 16}; do
  "$llama" -m "$file" --port $LLAMA_PORT -np "$at_once" -t "$THREADS" -c 16384 --cont-batching --no-webui >"$RUN/llama.log" 2>&1 &
  llama_pid=$!; pids+=("$llama_pid")
  until_answers http://127.0.0.1:$LLAMA_PORT/health "$llama_pid"
  start_engine "$at_once"
  rate http://127.0.0.1:$LLAMA_PORT $model "$at_once" 0 >/dev/null; rate $GATEWAY $model "$at_once" 0 >/dev/null   # warm
  for block in $(seq "$BENCH_BLOCKS"); do
    [ $((block % 2)) -eq 0 ] || read -r theirs theirs_each < <(rate http://127.0.0.1:$LLAMA_PORT $model "$at_once" "$block")
    read -r ours ours_each < <(rate $GATEWAY $model "$at_once" "$block")
    [ $((block % 2)) -eq 1 ] || read -r theirs theirs_each < <(rate http://127.0.0.1:$LLAMA_PORT $model "$at_once" "$block")
    say "$ours $theirs" >>"$RUN/rate.$at_once"
    say "$ours_each $theirs_each" >>"$RUN/each.$at_once"
  done
  say "engine, $at_once requests at once, at most $MAX_TOKENS tokens each, $THREADS threads:"
  numbers "  through the whole gateway" tokens/s "  llama-server" <"$RUN/rate.$at_once"
  numbers "  tokens of an answer" tokens "  llama-server's" <"$RUN/each.$at_once" | sed -n 1,2p
  end "$GATEWAY_PID"; end "$llama_pid"
done
