#!/usr/bin/env bash
# One connection: what the gateway adds to the time of an answer over nginx, and how much of it is the group commit.
source "$(dirname "$0")/rig.sh"
export BODY=$CHAT_BODY
build
machine
start_sim
start_nginx
start_gateway

commits() { # "sum_seconds count" of the group commits so far
  curl -fsS $GATEWAY/metrics | awk '/^batchin_commit_seconds_sum/ { s = $2 } /^batchin_commit_seconds_count/ { c = $2 } END { print s + 0, c + 0 }'
}

blast "$GATEWAY" 1 1 >/dev/null; blast "$NGINX" 1 1 >/dev/null   # warm
for _ in $(seq "$BENCH_BLOCKS"); do
  read -r _ _ nginx _ < <(blast "$NGINX" "$BENCH_SECONDS" 1)
  read -r sum count < <(commits)
  read -r _ _ ours _ < <(blast "$GATEWAY" "$BENCH_SECONDS" 1)
  commits | awk -v s="$sum" -v c="$count" -v o="$ours" -v n="$nginx" '{ print o, n, ($1 - s) / ($2 - c) * 1e6 }' >>"$RUN/rows"
done

say "latency, one connection, SQLite with synchronous=FULL:"
cut -d' ' -f1,2 "$RUN/rows" | numbers "  p50" µs "  nginx as a plain proxy, p50"
awk '{ print $1 - $2 }' "$RUN/rows" | numbers "  added over nginx" µs
awk '{ print $3 }' "$RUN/rows" | numbers "  group commit, mean" µs
awk '{ print $1 - $2 - $3 }' "$RUN/rows" | numbers "  added beyond the commit" µs
