#!/usr/bin/env bash
# Runs the whole suite: real models, real PostgreSQL, the official SDKs. Starts and stops what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/.test
mkdir -p "$folder"

# Everything is built once, with the features that the tests have; the executable among it.
cargo nextest run --workspace --locked --no-run
mkdir -p "$folder/data"
for model in smollm2-135m-instruct all-minilm-l6-v2; do
  target/debug/batchin --data "$folder/data" models pull "$model" >/dev/null
done
# Its source may vanish.
target/debug/batchin --data "$folder/data" models pull piper-en-us-joe >/dev/null ||
  echo "The voice piper-en-us-joe could not be fetched: it is not tested, espeak-ng alone is." >&2
export BATCHIN_TEST_MODELS=$folder/data/models

if [ ! -x "$folder/venv/bin/python" ] || ! cmp -s tests/requirements.txt "$folder/venv/requirements.txt"; then
  rm -rf "$folder/venv"
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/requirements.txt
  cp tests/requirements.txt "$folder/venv/requirements.txt"
fi
export BATCHIN_TEST_PYTHON=$folder/venv/bin/python

if ! cmp -s tests/node/package-lock.json "$folder/node/package-lock.json"; then
  mkdir -p "$folder/node"
  cp tests/node/package.json tests/node/package-lock.json "$folder/node/"
  (cd "$folder/node" && npm ci --silent --no-audit --no-fund)
fi
export BATCHIN_TEST_NODE_MODULES=$folder/node/node_modules

postgres=$folder/postgres
scripts/test-postgres.sh stop "$postgres" >/dev/null 2>&1 || true
BATCHIN_TEST_POSTGRES=$(scripts/test-postgres.sh start "$postgres")
export BATCHIN_TEST_POSTGRES
trap 'scripts/test-postgres.sh stop "$postgres" >/dev/null 2>&1 || true' EXIT

cargo nextest run --workspace --locked "$@"
