#!/usr/bin/env bash
# Memory of the server without the engine: after it has started, and after a thousand requests.
source "$(dirname "$0")/rig.sh"
build
machine
start_sim
start_gateway
sleep 2
started=$(rss_kb "$GATEWAY_PID")
load $GATEWAY/v1/chat/completions --body "$CHAT_BODY" --connections 8 --requests 1000 --seconds 60 >"$RUN/report"
sleep 2
say "memory without the engine (RSS):"
awk -v a="$started" -v b="$(rss_kb "$GATEWAY_PID")" -v h="$(awk '/VmHWM/ { print $2 }' "/proc/$GATEWAY_PID/status")" \
  'BEGIN { printf "  after the start: %.1f MB\n  after 1,000 requests: %.1f MB\n  peak: %.1f MB\n", a / 1024, b / 1024, h / 1024 }'
