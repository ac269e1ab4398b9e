#!/usr/bin/env bash
# openai 7.59.0 (npm), Node 20.20, seen on 2026-11-29.
#
# The helper `client.chat.completions.stream` puts tool calls together by `index` alone. Two calls with different ids that
# are both `index` 0 become one, with the second's id and name and the arguments of both; a first call that is `index` 1 is
# refused.
#
# Output seen:
#   index 0 twice: [["call_b","g","{\"x\":1}{\"y\":2}"]]
#   first index 1: OpenAIError
#   index 0 and 1: [["call_a","f","{\"x\":1}"],["call_b","g","{\"y\":2}"]]
#
# Exits with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes > npm.log
npm install --silent --no-fund --no-audit openai@7.59.0 >> npm.log
cat > check.mjs <<'JS'
import assert from "node:assert";
import http from "node:http";
import OpenAI from "openai";

const calls = [["call_a", "f", '{"x":1}'], ["call_b", "g", '{"y":2}']];
let indices = [0, 0];
const server = http.createServer((request, response) => {
  request.resume().on("end", () => {
    const head = { id: "c", object: "chat.completion.chunk", created: 1, model: "m" };
    const chunks = calls.map(([id, name, args], at) => {
      const call = { index: indices[at], id, type: "function", function: { name, arguments: args } };
      return { ...head, choices: [{ index: 0, delta: { role: "assistant", tool_calls: [call] }, finish_reason: null }] };
    });
    chunks.push({ ...head, choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }] });
    response.writeHead(200, { "content-type": "text/event-stream" });
    chunks.forEach((chunk) => response.write(`data: ${JSON.stringify(chunk)}\n\n`));
    response.end("data: [DONE]\n\n");
  });
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const client = new OpenAI({ baseURL: `http://127.0.0.1:${server.address().port}/v1`, apiKey: "x", maxRetries: 0 });

async function seen(...numbers) {
  indices = numbers;
  try {
    const runner = client.chat.completions.stream({ model: "m", messages: [{ role: "user", content: "x" }] });
    const { choices } = await runner.finalChatCompletion();
    return JSON.stringify(choices[0].message.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]));
  } catch (error) {
    return error.constructor.name;
  }
}

const alike = await seen(0, 0), late = await seen(1, 2), right = await seen(0, 1);
console.log("index 0 twice:", alike);
console.log("first index 1:", late);
console.log("index 0 and 1:", right);
server.close();
server.closeAllConnections();
assert.equal(right, JSON.stringify(calls));
assert.equal(alike, JSON.stringify([["call_b", "g", '{"x":1}{"y":2}']]));
assert.equal(late, "OpenAIError");
JS
timeout 60 node check.mjs
