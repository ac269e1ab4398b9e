# Two commands do everything on a fresh machine: `make run` and `make test`.
# Debian 12 or newer with make, git, a C compiler, Rust, and root or passwordless sudo for apt-get.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DATA ?= data
LISTEN ?= 127.0.0.1:8080

.PHONY: help run test lint fmt build bench clean

help: ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: ## Build quickly, fetch the small models, start the server, run a sample batch, keep serving until Ctrl-C
	@scripts/setup.sh build
	@cargo build --profile quick --locked --package batchin-server
	@DATA=$(DATA) LISTEN=$(LISTEN) scripts/run.sh target/quick/batchin

test: ## Install what the tests need, start it, run everything, stop it
	@scripts/setup.sh build test
	@scripts/test.sh

lint: ## Formatting, clippy, licences and bans, tidiness
	@scripts/setup.sh build lint
	@scripts/lint.sh

fmt: ## Format the code
	@cargo fmt --all

build: ## The release binary, in target/release/batchin: the fastest, and long in building
	@scripts/setup.sh build
	@scripts/build.sh --package batchin-server
	@scripts/debug-apart.sh target/release/batchin

bench: ## Every measurement in bench/, one after another
	@bench/all.sh

clean: ## Remove what was built; data stays
	@cargo clean
