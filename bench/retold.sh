#!/usr/bin/env bash
# Streams of responses and of messages, told in the chats of their model server: CPU for one delta, against the same server
# passing the chat on.
source "$(dirname "$0")/rig.sh"
: "${STREAM_TOKENS:=200}" "${STREAM_GAP_MS:=5}"
build
machine
start_sim
start_gateway

TEXT=$(printf 'word %.0s' $(seq 60))
body_of() { # body_of CALL
  case "$1" in
    chat/completions) say '{"model":"stream","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"'"$TEXT"'"}]}' ;;
    responses) say '{"model":"stream","stream":true,"input":"'"$TEXT"'"}' ;;
    messages) say '{"model":"stream","stream":true,"max_tokens":4096,"messages":[{"role":"user","content":"'"$TEXT"'"}]}' ;;
  esac
}
cpu_per_delta() { # cpu_per_delta CALL
  local before; before=$(cpu_us "$GATEWAY_PID")
  load "$GATEWAY/v1/$1" --body "$(body_of "$1")" --connections "$CONNECTIONS" --seconds "$BENCH_SECONDS" >"$RUN/report"
  python3 - "$before" "$(cpu_us "$GATEWAY_PID")" "$STREAM_TOKENS" "$RUN/report" <<'PY'
import json, sys
before, after, tokens = map(int, sys.argv[1:4])
report = json.load(open(sys.argv[4]))
assert report["ok"] and not report["broken"] + report["status_other"], report
print((after - before) / (report["ok"] * tokens))
PY
}
calls="chat/completions responses messages"
for call in $calls; do cpu_per_delta "$call" >/dev/null; done   # warm
for _ in $(seq "$BENCH_BLOCKS"); do
  chat=$(cpu_per_delta chat/completions)
  for call in responses messages; do say "$(cpu_per_delta "$call") $chat" >>"$RUN/$call"; done
done
say "streams of $STREAM_TOKENS deltas, one every $STREAM_GAP_MS ms, $CONNECTIONS at once:"
for call in responses messages; do numbers "  CPU per delta of $call" µs "  the chat passed on" <"$RUN/$call"; done
