#!/usr/bin/env bash
# The release binary, built with a profile: once with counters in it, then, with what they counted under load, once more.
# The compiler then knows which code is hot. Takes more than twice as long as `make build`; every request costs less
# (bench/README.md).
#
#   scripts/release.sh                     for processors of the level x86-64-v3
#   TARGET_CPU=native scripts/release.sh   for this one
#
# The binary is target/release-profiled/batchin. The load is that of bench/: chat on both databases, streams, batches.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${TARGET_CPU:=x86-64-v3}"
profile=$PWD/target/release-profiled
triple=$(rustc -vV | sed -n 's/^host: //p')
version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

# What counters mean is known to the LLVM that the compiler is made with: rustup has its tools, and so may Debian.
merge() {
  local tool; tool=$(rustc --print sysroot)/lib/rustlib/$triple/bin/llvm-profdata
  if [ ! -x "$tool" ] && ! rustup component add llvm-tools >/dev/null 2>&1; then
    scripts/setup.sh "llvm-$version"
    tool=llvm-profdata-$version
  fi
  "$tool" merge "$@"
}

# A target of its own keeps the counters out of build scripts and macros.
build() { # build FLAGS
  RUSTFLAGS="-C target-cpu=$TARGET_CPU $1" cargo build --release --locked --target "$triple" --package batchin-server --bin batchin
}

scripts/setup.sh build test
mkdir -p "$profile"
rm -rf "$profile/counts"
build "-C profile-generate=$profile/counts"
cp "target/$triple/release/batchin" "$profile/counting"
cargo build --release --locked --package batchin-sim --bins --example load
for measurement in chat "chat postgres" stream "batch sqlite"; do
  read -ra words <<<"$measurement"
  BATCHIN=$profile/counting BENCH_NO_BUILD=1 BENCH_BLOCKS=1 BENCH_SECONDS=8 SIZES=5000 BATCHES=1 "bench/${words[0]}.sh" "${words[@]:1}"
done
merge --output "$profile/profile" "$profile/counts"
build "-C profile-use=$profile/profile"
cp "target/$triple/release/batchin" "$profile/batchin"
echo "$profile/batchin"
