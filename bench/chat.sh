#!/usr/bin/env bash
# Chat with everything on: CPU of the gateway for one request, against nginx as a plain reverse proxy in the same run.
#
#   bench/chat.sh             SQLite, synchronous=FULL
#   bench/chat.sh postgres    PostgreSQL, whose CPU is reported on its own line
source "$(dirname "$0")/rig.sh"
export BODY=$CHAT_BODY
build
machine
start_sim
start_nginx
[ "${1:-sqlite}" = sqlite ] || start_postgres
start_gateway "${POSTGRES_URL:-}"

blast "$GATEWAY" 2 >/dev/null; blast "$NGINX" 2 >/dev/null   # warm
began_ok=$(usage_requests)
good=0 other=0
for _ in $(seq "$BENCH_BLOCKS"); do
  before=$(cpu_us "$NGINX_PID")
  read -r ok _ _ _ < <(blast "$NGINX" "$BENCH_SECONDS")
  nginx=$(awk -v a="$before" -v b="$(cpu_us "$NGINX_PID")" -v n="$ok" 'BEGIN { print (b - a) / n }')
  before=$(cpu_us "$GATEWAY_PID"); sql_before=$([ -z "${POSTGRES_PID:-}" ] || cpu_us "$POSTGRES_PID")
  read -r ok bad p50 p99 < <(blast "$GATEWAY" "$BENCH_SECONDS")
  awk -v a="$before" -v b="$(cpu_us "$GATEWAY_PID")" -v n="$ok" -v x="$nginx" 'BEGIN { print (b - a) / n, x }' >>"$RUN/cpu"
  [ -z "${POSTGRES_PID:-}" ] || awk -v a="$sql_before" -v b="$(cpu_us "$POSTGRES_PID")" -v n="$ok" 'BEGIN { print (b - a) / n }' >>"$RUN/sql"
  awk -v n="$ok" -v s="$BENCH_SECONDS" 'BEGIN { print n / s }' >>"$RUN/rate"
  say "$p50 $p99" >>"$RUN/latency"
  good=$((good + ok)) other=$((other + bad))
done
sleep 1
charged=$(($(usage_requests) - began_ok))

say "chat, ${1:-sqlite}, $CONNECTIONS connections, answers of 1 KB, key, rpm, budget, hold, durable usage and charge:"
numbers "  CPU per request" µs "  nginx as a plain proxy" <"$RUN/cpu"
[ ! -s "$RUN/sql" ] || numbers "  PostgreSQL beside it, per request" µs <"$RUN/sql"
numbers "  requests a second on one core" /s <"$RUN/rate"
cut -d' ' -f1 "$RUN/latency" | numbers "  latency p50" µs
cut -d' ' -f2 "$RUN/latency" | numbers "  latency p99" µs
# wrk cuts its last requests off when its time is up; those are charged and not counted.
cut_off=$((CONNECTIONS * BENCH_BLOCKS))
say "  answered $good, charged $charged (wrk leaves up to $cut_off unread), refused or failed $other"
[ "$charged" -ge "$good" ] && [ "$charged" -le $((good + cut_off)) ] || { say "  CHARGES DIFFER FROM ANSWERS"; exit 1; }
batchin ledger check
