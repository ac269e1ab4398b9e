#!/usr/bin/env bash
# object_store 0.14.2 (crates.io) with cargo 1.95.0, seen on 2026-11-30.
#
# Its documentation says how to choose the TLS of its HTTP client, for instance to do without aws-lc: beside `aws-base` and
# `reqwest` one writes `reqwest/native-tls` into the features of the dependency. Cargo refuses a manifest with such a line: a
# dependency's features may not have slashes. Without it the client does not compile, as it names types that reqwest has
# only with TLS. What compiles is a dependency on reqwest itself, with a feature of TLS, whether or not it is used; in a
# workspace any other crate's will do, so that all of it builds and one crate alone does not.
#
# Output seen:
#   as documented: feature `reqwest/native-tls` in dependency `object_store` is not allowed to contain slashes
#   without TLS: cannot find `tls` in `reqwest`
#   beside reqwest with TLS: compiles
#
# Exits with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
touch src/lib.rs
manifest() { # manifest FEATURE [LINE]: object_store with one feature more, and another dependency
  cat >Cargo.toml <<TOML
[package]
name = "seen"
version = "0.0.0"
edition = "2021"
[dependencies]
object_store = { version = "=0.14.2", default-features = false, features = ["aws-base", "reqwest", "$1"] }
${2:-}
TOML
}
{
  manifest reqwest/native-tls
  printf 'as documented: %s\n' "$(cargo metadata --format-version 1 2>&1 >/dev/null | grep -o 'feature .* slashes')"
  manifest ring
  printf 'without TLS: %s\n' "$(cargo check --quiet 2>&1 | grep -o -m 1 'cannot find `tls` in `reqwest`')"
  manifest ring 'reqwest = { version = "=0.13.5", default-features = false, features = ["rustls-no-provider"] }'
  cargo check --quiet && echo 'beside reqwest with TLS: compiles'
} | tee out
diff - out <<'SEEN'
as documented: feature `reqwest/native-tls` in dependency `object_store` is not allowed to contain slashes
without TLS: cannot find `tls` in `reqwest`
beside reqwest with TLS: compiles
SEEN
