#!/usr/bin/env bash
# What a group commit and a claim cost over SeaORM, sqlx and tokio-postgres, by turns in one run.
#
#   bench/layers.sh    ROWS=16 settlements a group, TIMES=600 groups a turn
source "$(dirname "$0")/rig.sh"
: "${ROWS:=16}" "${TIMES:=600}"
[ -n "${BENCH_NO_BUILD:-}" ] || scripts/build.sh --quiet -p batchin-server
cargo build --quiet --release --manifest-path bench/layers/Cargo.toml
machine
start_postgres
"$BATCHIN" migrate --data "$RUN/data" --database-url "$POSTGRES_URL" 2>/dev/null
bench/layers/target/release/layers "$POSTGRES_URL" "$ROWS" "$TIMES"
