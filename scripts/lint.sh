#!/usr/bin/env bash
# What CI checks beside the tests. Advisories need the network and are looked at in a release.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.test/lint/bin:$PATH
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo deny --log-level error check licenses bans sources
cargo run --quiet --package xtask -- tidy
