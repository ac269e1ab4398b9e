#!/usr/bin/env bash
# Every measurement, one after another; the second to the last need no build. `bench/run-time.sh` builds everything
# again in a fresh clone and is left to run by itself.
set -euo pipefail
cd "$(dirname "$0")"
failed=()
for measurement in idle chat "chat postgres" latency stream retold media speech saturation intake batch s3 claims audit statement engine; do
  read -ra words <<<"$measurement"
  "./${words[0]}.sh" "${words[@]:1}" || failed+=("$measurement")
  export BENCH_NO_BUILD=1
  echo
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
