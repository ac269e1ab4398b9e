#!/usr/bin/env bash
# Counts under load what the release binary does, and writes that down in scripts/batchin.profdata, with which
# scripts/build.sh builds: the compiler then knows which code is hot, and each request costs less (bench/README.md).
#
# The load is that of bench/: chat on both databases, streams, batches. The counts fit the functions that they were taken
# of: they age as those change, and those of a crate end when its dependencies change. A build with old ones is right and
# slower. Takes half an hour and more.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/target/profile
triple=$(rustc -vV | sed -n 's/^host: //p')
version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

# Functions that ran less often are built as if nothing were known of them, as is all that the load does not reach, the
# engine's kernels among it. That keeps the file small.
LEAST_RUNS=1000

# What counters mean is known to the LLVM that the compiler is made with: rustup has its tools, and so may Debian.
profdata=$(rustc --print sysroot)/lib/rustlib/$triple/bin/llvm-profdata
if [ ! -x "$profdata" ] && ! rustup component add llvm-tools >/dev/null 2>&1; then
  scripts/setup.sh "llvm-$version"
  profdata=llvm-profdata-$version
fi

scripts/setup.sh build test
rm -rf "$work/counts"
mkdir -p "$work/counts"
# Counted as it is used, without --target, since names hold that too; what build scripts and macros count goes nowhere.
# Counting comes before link-time optimisation, which would take longer than all else here.
LLVM_PROFILE_FILE=/dev/null PROFILE="profile-generate=$work/counts" LINK=quickly \
  scripts/build.sh --target-dir "$work/build" --package batchin-server
cargo build --profile quick --locked --package batchin-sim --bins --example load
for measurement in chat "chat postgres" stream "batch sqlite"; do
  read -ra words <<<"$measurement"
  BATCHIN=$work/build/release/batchin SIM=$PWD/target/quick/sim LOAD=$PWD/target/quick/examples/load BENCH_NO_BUILD=1 BENCH_BLOCKS=1 BENCH_SECONDS=8 SIZES=5000 BATCHES=1 \
    "bench/${words[0]}.sh" "${words[@]:1}"
done

# Records of the text form are parted by empty lines: a name, a hash, how many counters, their values, and tables of values.
"$profdata" merge --text --output "$work/all" "$work/counts"
awk -v least="$LEAST_RUNS" '
  BEGIN { RS = ""; FS = "\n"; ORS = "\n\n" }
  NR == 1 { while ($1 ~ /^[#:]/) { print $1; sub(/^[^\n]*\n/, "") } }
  {
    most = 0; counted = 0
    for (i = 1; i <= NF; i++) {
      if ($i ~ /^# Num Value Kinds/) break
      if (counted && $i + 0 > most) most = $i + 0
      if ($i == "# Counter Values:") counted = 1
    }
    if (most >= least) print
  }' "$work/all" >"$work/hot"
"$profdata" merge --sparse --output scripts/batchin.profdata "$work/hot"
ls -l scripts/batchin.profdata
