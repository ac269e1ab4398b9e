#!/usr/bin/env bash
# Builds llama.cpp's own llama-server for this machine, once, and prints its path. The source is the one inside the
# llama-cpp-python sdist on PyPI, so that nothing but the package registry is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.3.36
folder=$PWD/bench/out/llama.cpp
server=$folder/build/bin/llama-server
if [ ! -x "$server" ]; then
  scripts/setup.sh build >&2
  mkdir -p "$folder"
  sdist=$folder/llama_cpp_python-$version.tar.gz
  if [ ! -s "$sdist" ]; then
    echo "fetching the source of llama.cpp from the registry" >&2
    python3 -m pip download --quiet --no-deps --no-binary :all: --dest "$folder" "llama-cpp-python==$version" >&2
  fi
  tar -xzf "$sdist" -C "$folder" --strip-components=3 "llama_cpp_python-$version/vendor/llama.cpp" --one-top-level=source
  # GCC up to 12.3 drops the stores of the AMX tile configuration, and the server would crash (ggml-org/llama.cpp#20824).
  flags=()
  if grep -q amx_int8 /proc/cpuinfo; then
    flags=(-DCMAKE_C_FLAGS="-fno-tree-dse -fno-dse" -DCMAKE_CXX_FLAGS="-fno-tree-dse -fno-dse")
  fi
  echo "building llama-server; this takes some minutes" >&2
  cmake -S "$folder/source" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DBUILD_SHARED_LIBS=OFF "${flags[@]}" >"$folder/build.log"
  nice -n 15 cmake --build "$folder/build" --target llama-server --parallel "$(nproc)" >>"$folder/build.log"
fi
echo "$server"
