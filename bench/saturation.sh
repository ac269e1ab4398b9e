#!/usr/bin/env bash
# Saturation: a minute at the highest rate, in which every answer is charged; and then more than fits, which is refused
# with 429 or 503 and not dropped.
source "$(dirname "$0")/rig.sh"
: "${SATURATION_SECONDS:=60}"
build
machine
start_sim
export BATCHIN_SERVER__MAX_IN_FLIGHT=256
start_gateway

round() { # round NAME CONNECTIONS SECONDS
  local before charged
  before=$(usage_requests)
  load $GATEWAY/v1/chat/completions --body "$CHAT_BODY" --connections "$2" --seconds "$3" >"$RUN/report"
  charged=$(($(usage_requests) - before))
  python3 - "$1" "$2" "$charged" "$RUN/report" <<'PY'
import json, sys
name, connections, charged = sys.argv[1], sys.argv[2], int(sys.argv[3])
r = json.load(open(sys.argv[4]))
refused = r["status_429"] + r["status_503"]
print(f"  {name}, {connections} connections, {r['seconds']:.0f} s: {r['ok']:,} answered ({r['ok'] / r['seconds']:,.0f}/s), "
      f"{charged:,} charged, {refused:,} refused with 429 or 503, {r['status_other']} otherwise, {r['broken']} broken off; "
      f"p50 {r['p50_us'] / 1000:.1f} ms, p99 {r['p99_us'] / 1000:.1f} ms")
sys.exit(charged != r["ok"] or r["status_other"] + r["broken"] > 0)
PY
}
say "saturation (at most $BATCHIN_SERVER__MAX_IN_FLIGHT in flight), SQLite with synchronous=FULL:"
round "as much as goes" 256 "$SATURATION_SECONDS"
round "more than goes" 1024 20
batchin ledger check
