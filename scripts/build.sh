#!/usr/bin/env bash
# cargo build --release with the profile that scripts/profile.sh took.
#
#   scripts/build.sh --package batchin-server                         for this processor
#   TARGET_CPU=x86-64-v3 scripts/build.sh --package batchin-server    for all of that level
#   LINK=quickly scripts/build.sh --package batchin-server            without link-time optimisation
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PROFILE:=profile-use=$PWD/scripts/batchin.profdata}"
# Functions that have changed since the profile was taken are built without it, and that is no news to whoever builds.
flags=(-C "target-cpu=${TARGET_CPU:-native}" -C "$PROFILE" -C llvm-args=-no-pgo-warn-mismatch)
if [ "${LINK:-}" = quickly ]; then
  # Not cargo's setting, which the names of functions hold, so that counts would belong to none of the release's.
  flags+=(-C linker-plugin-lto=off -C lto=off)
fi
# Not RUSTFLAGS, which a space in a folder's name would cut.
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
exec cargo build --release --locked "$@"
