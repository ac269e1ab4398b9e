#!/usr/bin/env bash
# What claiming tasks costs beside ten million finished ones, against an empty table.
#
#   bench/claims.sh [sqlite|postgres]    both without it; HISTORY=1000000 for fewer rows
source "$(dirname "$0")/rig.sh"
: "${HISTORY:=10000000}"
[ -n "${BENCH_NO_BUILD:-}" ] && [ -x target/release/examples/claims ] || scripts/build.sh --quiet -p batchin-store --example claims
machine
measure() { # measure NAME DATABASE_URL
  say "$1:"
  target/release/examples/claims "$2" "$HISTORY" | sed 's/^/  /'
}
case ${1:-both} in sqlite | both) measure sqlite "sqlite:$RUN/claims.db" ;; esac
case ${1:-both} in postgres | both) start_postgres; measure postgres "$POSTGRES_URL" ;; esac
