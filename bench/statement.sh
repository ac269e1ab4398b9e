#!/usr/bin/env bash
# A statement of a month with many requests, in each of its forms: how long it takes once the month has been added up, and how much
# memory. One request is real; the others are rows like it, written past the server, and the ledger check must accept them.
#
#   bench/statement.sh    ROWS=1000000 requests in one month, KEYS=10 keys, ASKED=20 times each form
source "$(dirname "$0")/rig.sh"
: "${ROWS:=1000000}" "${KEYS:=10}" "${ASKED:=20}"
build
machine
start_sim
start_gateway
for _ in $(seq 2 "$KEYS"); do batchin key create bench@example.org >/dev/null; done
curl -fsS -o /dev/null -H "Authorization: Bearer $KEY" -H 'content-type: application/json' -d "$CHAT_BODY" $GATEWAY/v1/chat/completions
end "$GATEWAY_PID"
python3 bench/statement.py fill "$DATA/batchin.db" "$ROWS"
taskset -c "$GATEWAY_CORE" "$BATCHIN" --config "$DATA/batchin.toml" --data "$DATA" serve >"$RUN/again.out" 2>"$RUN/again.log" &
GATEWAY_PID=$!; pids+=("$GATEWAY_PID")
python3 bench/statement.py ask "$GATEWAY" "$KEY" "$DATA/batchin.db" "$GATEWAY_PID" "$ASKED"
batchin ledger check
