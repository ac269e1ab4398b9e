#!/usr/bin/env bash
# Payments in USDC on anvil: 10,000 watched addresses, 1,000 payments of as many transactions in one block: from the block that
# makes them final to the last credit, and the calls of JSON-RPC for each block.
#
#   bench/deposits.sh    ADDRESSES=10000 PAYMENTS=1000
source "$(dirname "$0")/rig.sh"
: "${ADDRESSES:=10000}" "${PAYMENTS:=1000}"
build
install npm npm
machine
mkdir -p "$RUN/node"
(cd "$RUN/node" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund @foundry-rs/anvil@1.7.1)
ANVIL=$(find "$RUN/node/node_modules/@foundry-rs" -type f -name anvil -perm -u+x | head -1)
"$ANVIL" --port 19980 --no-mining --order fifo --hardfork cancun --gas-limit 2000000000 --accounts 1 --balance 1000000000 --chain-id 8453 \
  >"$RUN/anvil.log" 2>&1 &
pids+=($!)
until curl -fsS -o /dev/null -X POST -H 'content-type: application/json' -d '{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}' http://127.0.0.1:19980; do sleep 0.1; done
python3 bench/deposits.py count 19980 19981 "$RUN/calls" &
pids+=($!)
start_sim
# The API's own look at the chain is each second.
export EXTRA_CONFIG='[usdc]
xpub = "xpub6DCoCpSuQZB2jawqnGMEPS63ePKWkwWPH4TU45Q7LPXWuNd8TMtVxRrgjtEshuqpK3mdhaWHPFsBngh5GFZaM6si3yZdUsT8ddYM3PwnATt"
[[usdc.chains]]
chain = "base"
rpc_urls = ["http://127.0.0.1:19981"]
required_confirmations = 4
finality = "confirmations"
poll_seconds = 1'
start_gateway
python3 bench/deposits.py pay 19980 "$PAYMENTS" "$ADDRESSES" "$DATA/batchin.db" "$RUN/calls"
batchin ledger check
