#!/usr/bin/env bash
# The audit log on one core with SQLite: records made, durable and in the published log, a second; a record with its proof, and its
# checking; the root anew from all leaves; bytes of the database for an entry.
#
#   bench/audit.sh    ENTRIES=1000000
source "$(dirname "$0")/rig.sh"
: "${ENTRIES:=1000000}" "${AUDIT_LOG:=target/release/examples/log}"
[ -n "${BENCH_NO_BUILD:-}" ] && [ -x "$AUDIT_LOG" ] || scripts/build.sh --quiet -p batchin-audit --example log
machine
taskset -c "$GATEWAY_CORE" "$AUDIT_LOG" "$RUN/audit.db" "$ENTRIES"
