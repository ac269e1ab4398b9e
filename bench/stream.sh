#!/usr/bin/env bash
# Streams: CPU for one delta of a stream of 200, against nginx proxying the same stream; memory over a stream of 50 MB.
source "$(dirname "$0")/rig.sh"
: "${STREAM_TOKENS:=200}" "${STREAM_GAP_MS:=5}" "${LONG_TOKENS:=350000}"
NGINX_BUFFERING=off
build
machine
start_sim
start_nginx
start_gateway

stream_body() { say '{"model":"'"$1"'","stream":true,"stream_options":{"include_usage":true},"messages":'"$MESSAGES"'}'; }
cpu_per_delta() { # cpu_per_delta PID URL MODEL
  local before; before=$(cpu_us "$1")
  load "$2/v1/chat/completions" --body "$(stream_body "$3")" --connections "$CONNECTIONS" --seconds "$BENCH_SECONDS" >"$RUN/report"
  python3 - "$before" "$(cpu_us "$1")" "$STREAM_TOKENS" "$RUN/report" <<'PY'
import json, sys
before, after, tokens = map(int, sys.argv[1:4])
report = json.load(open(sys.argv[4]))
assert report["ok"] and not report["broken"] + report["status_other"], report
print((after - before) / (report["ok"] * tokens))
PY
}
direct="sim:tokens=$STREAM_TOKENS,gap_ms=$STREAM_GAP_MS"
cpu_per_delta "$GATEWAY_PID" "$GATEWAY" stream >/dev/null; cpu_per_delta "$NGINX_PID" "$NGINX" "$direct" >/dev/null   # warm
for _ in $(seq "$BENCH_BLOCKS"); do
  nginx=$(cpu_per_delta "$NGINX_PID" "$NGINX" "$direct")
  say "$(cpu_per_delta "$GATEWAY_PID" "$GATEWAY" stream) $nginx" >>"$RUN/cpu"
done
say "streams of $STREAM_TOKENS deltas, one every $STREAM_GAP_MS ms, $CONNECTIONS at once:"
numbers "  CPU per delta" µs "  nginx without buffering" <"$RUN/cpu"

memory() { # memory NAME COMMAND…: the gateway's memory while COMMAND reads one long stream
  local name=$1 pid; shift
  "$@" >"$RUN/bytes" & pid=$!
  : >"$RUN/rss"
  while kill -0 "$pid" 2>/dev/null; do rss_kb "$GATEWAY_PID" >>"$RUN/rss"; sleep 0.05; done
  wait "$pid"
  awk -v name="$name" -v bytes="$(wc -c <"$RUN/bytes")" -v before="$BEFORE" \
    '{ if ($1 > max) max = $1 } END { printf "  memory over a %s stream of %.0f MB: %.1f MB before, at most %.1f MB\n", name, bytes / 1e6, before / 1024, max / 1024; exit max - before > 16384 }' "$RUN/rss"
}
read_long() { curl -fsS "$@" -H "Authorization: Bearer $KEY" -H 'content-type: application/json' -d "$(stream_body long)" $GATEWAY/v1/chat/completions; }
BEFORE=$(rss_kb "$GATEWAY_PID")
memory fast read_long || { say "  MEMORY GROWS WITH THE STREAM"; exit 1; }
memory "slowly read" read_long --limit-rate 8M || { say "  MEMORY GROWS WITH A SLOW READER"; exit 1; }
