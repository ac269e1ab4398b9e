#!/usr/bin/env bash
# `make run` in a fresh clone: how long until the first answer of a real model, and how long the second time.
#
#   bench/run-time.sh            with this machine's cargo registry
#   bench/run-time.sh --fresh    with an empty one
set -euo pipefail
cd "$(dirname "$0")/.."
machine=$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs)
folder=$(mktemp -d "${TMPDIR:-/tmp}/batchin-run-time.XXXXXX")
address=127.0.0.1:19995
pid=""
stop() { [ -z "$pid" ] || { kill -TERM -- "-$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; pid=""; }; }
trap 'stop; rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
git clone --quiet . "$folder/batchin"
if [ "${1:-}" = --fresh ]; then
  mkdir -p "$folder/cargo"
  # Where the registry is mirrored, the mirror is part of the machine and not of the registry.
  cp "${CARGO_HOME:-$HOME/.cargo}"/config.toml "$folder/cargo/" 2>/dev/null || true
  export CARGO_HOME=$folder/cargo
fi
cd "$folder/batchin"
once() { # once NAME
  local began now last=0; began=$(date +%s.%N)
  setsid make run LISTEN=$address >"$folder/$1.log" 2>&1 &
  pid=$!
  until grep -q '^Serving on' "$folder/$1.log"; do
    kill -0 "$pid" 2>/dev/null || { tail -20 "$folder/$1.log" >&2; exit 1; }
    now=$(date +%s)
    [ $((now - last)) -lt 60 ] || { [ "$last" = 0 ] || tail -c 200 "$folder/$1.log" | tail -1 >&2; last=$now; }
    sleep 0.1
  done
  awk -v a="$began" -v b="$(date +%s.%N)" -v n="$1" 'BEGIN { printf "make run, %s time, to the answers of the sample batch: %.1f s\n", n, b - a }'
  stop
}
echo "machine: $machine, $(nproc) cores; commit $(git rev-parse --short HEAD); $(date -u +%Y-%m-%dT%H:%MZ); ${1:-with a filled cargo registry}"
once first
grep -o 'Finished .*' "$folder/first.log" || true
once second
