#!/usr/bin/env bash
# Reports of Stripe: verified, stored durably and answered, a second on one core with SQLite; and that nothing is lost at the
# highest rate. Every report is an event of its own, signed with its own signature.
#
#   bench/reports.sh    EVENTS=60000 reports, CONNECTIONS=64
source "$(dirname "$0")/rig.sh"
: "${EVENTS:=60000}" "${CONNECTIONS:=64}"
build
machine
start_sim
# Stripe itself is out: what deals with the reports tries and puts off, on the same core.
export BATCHIN_STRIPE__SECRET_KEY=sk_test_bench BATCHIN_STRIPE__WEBHOOK_SECRET=whsec_bench BATCHIN_STRIPE__API_BASE=http://127.0.0.1:$ABSENT_PORT
start_gateway
python3 bench/reports.py sign whsec_bench "$EVENTS" "$RUN/reports.txt"
before=$(cpu_us "$GATEWAY_PID")
REPORTS=$RUN/reports.txt taskset -c "$LOAD_CORES" wrk -t1 -c"$CONNECTIONS" -d"${BENCH_SECONDS}s" -s bench/reports.lua $GATEWAY/v1/webhooks/stripe >"$RUN/wrk.txt"
after=$(cpu_us "$GATEWAY_PID")
python3 bench/reports.py told "$RUN/wrk.txt" "$DATA/batchin.db" "$((after - before))"
