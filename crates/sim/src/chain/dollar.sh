#!/usr/bin/env bash
# Compiles dollar.sol anew into dollar.hex, the code that the contract has once it is placed. Needs node and npm.
set -euo pipefail
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" solc@0.8.37 @openzeppelin/contracts@5.7.0
cp dollar.sol "$folder/"
cat >"$folder/compile.cjs" <<'JS'
const { readFileSync } = require("node:fs");
const solc = require("solc");
const settings = { optimizer: { enabled: true, runs: 200 }, evmVersion: "paris", metadata: { bytecodeHash: "none" },
  outputSelection: { "dollar.sol": { Dollar: ["evm.deployedBytecode.object"] } } };
const sources = { "dollar.sol": { content: readFileSync("dollar.sol", "utf8") } };
const read = (path) => ({ contents: readFileSync(`node_modules/${path}`, "utf8") });
const out = JSON.parse(solc.compile(JSON.stringify({ language: "Solidity", sources, settings }), { import: read }));
const errors = (out.errors ?? []).filter((error) => error.severity === "error");
if (errors.length) throw new Error(errors.map((error) => error.formattedMessage).join("\n"));
console.log(out.contracts["dollar.sol"].Dollar.evm.deployedBytecode.object);
JS
(cd "$folder" && node compile.cjs) >dollar.hex
