#!/usr/bin/env bash
# cargo build --release with the profile that scripts/profile.sh took.
#
#   scripts/build.sh --package batchin-server                         for this processor
#   TARGET_CPU=x86-64-v3 scripts/build.sh --package batchin-server    for all of that level
set -euo pipefail
cd "$(dirname "$0")/.."
# Functions that have changed since the profile was taken are built without it, and that is no news to whoever builds.
export RUSTFLAGS="-C target-cpu=${TARGET_CPU:-native} -C profile-use=$PWD/scripts/batchin.profdata -C llvm-args=-no-pgo-warn-mismatch"
exec cargo build --release --locked "$@"
