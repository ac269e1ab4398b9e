#!/usr/bin/env bash
# Package:   openai 7.59.0 (npm), run with Node 20.20
# Behaviour: a `retry-after` over 60 s is ignored: the client is back after its own short pause of half a second, as if the
#            header had not been sent. Up to 60 s it waits as long as it is told. So a server that asks for 61 s is called
#            again at once, and one that asks for 60 s is not.
# Seen on:   2026-11-29
# Output:    retry-after: 2  -> called again after 2.1 s
#            retry-after: 61 -> called again after 0.4 s
#
# Installs the package into a temporary folder; exits non-zero when the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true, "type": "module" }' > package.json
npm install --silent --no-audit --no-fund openai@7.59.0
cat > run.mjs <<'JS'
import { createServer } from "node:http";
import OpenAI from "openai";

const body = {
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 0,
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: "hi", refusal: null }, finish_reason: "stop", logprobs: null }],
};

async function pause(retryAfter) {
  const calls = [];
  const server = createServer((request, response) => {
    request.resume();
    calls.push(performance.now());
    if (calls.length === 1) {
      response.writeHead(429, { "content-type": "application/json", "retry-after": String(retryAfter) });
      response.end(JSON.stringify({ error: { message: "later", type: "rate_limit_error", param: null, code: "later" } }));
    } else {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(body));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${server.address().port}/v1`, apiKey: "k", maxRetries: 1 });
  await client.chat.completions.create({ model: "m", messages: [{ role: "user", content: "hi" }] });
  server.closeAllConnections();
  server.close();
  return (calls[1] - calls[0]) / 1000;
}

const short = await pause(2);
console.log(`retry-after: 2  -> called again after ${short.toFixed(1)} s`);
const long = await pause(61);
console.log(`retry-after: 61 -> called again after ${long.toFixed(1)} s`);
process.exit(short >= 1.9 && short < 5 && long < 2 ? 0 : 1);
JS
node run.mjs
