#!/usr/bin/env bash
# Takes the debug information out of an executable, into a file beside it that ends in .debug. The names of functions
# stay. A panic's backtrace (RUST_BACKTRACE=1), perf and gdb find that file where it lies beside the executable, and then
# say lines as well.
#
#   scripts/debug-apart.sh target/release/batchin
set -euo pipefail
cd "$(dirname "$1")"
name=$(basename "$1")
objcopy --only-keep-debug --compress-debug-sections=zlib "$name" "$name.debug"
# A file of its own: cargo keeps the whole one as well, under a second name, and puts it back in the next build.
objcopy --strip-debug --add-gnu-debuglink="$name.debug" "$name" "$name.apart"
mv "$name.apart" "$name"
