#!/usr/bin/env bash
# What CI checks beside the tests. Advisories need the network and are looked at in a release.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.test/lint/bin:$PATH
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo deny --log-level error check licenses bans sources
faults=$(cargo tree --locked --package batchin-server --edges normal,features --invert batchin-faults)
if grep -q '"enabled"' <<<"$faults"; then
    echo "$0: cargo build would compile the faults of the tests in; only dev-dependencies may enable batchin-faults" >&2
    exit 1
fi
cargo run --quiet --package xtask -- tidy
