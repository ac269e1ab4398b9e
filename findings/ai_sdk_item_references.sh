#!/usr/bin/env bash
# Package:   ai 6.0.325 with @ai-sdk/openai 3.0.141 (npm), run with Node 20.20
# Behaviour: in a loop of tool calls the model's call goes back whole, and what it thought before it as a bare reference,
#            `{"type": "item_reference", "id": …}`, although the answer that both came in said `"store": false`. Whether
#            something is stored is read from the caller's own option alone: with `providerOptions.openai.store: false` no
#            reference is sent. So a server that stores nothing, and refuses references, works with the package's defaults
#            until a model thinks.
# Seen on:   2026-11-30
# Output:    by default:   item_reference, function_call, function_call_output
#            store: false: function_call, function_call_output
#
# Installs the packages into a temporary folder; exits non-zero when the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true, "type": "module" }' > package.json
npm install --silent --no-audit --no-fund ai@6.0.325 @ai-sdk/openai@3.0.141 zod@4.6.7
cat > run.mjs <<'JS'
import { createServer } from "node:http";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const answer = (output) => ({
  id: "resp_1", object: "response", created_at: 1, status: "completed", error: null, incomplete_details: null,
  instructions: null, model: "m", output, parallel_tool_calls: true, store: false, tool_choice: "auto", tools: [],
  usage: { input_tokens: 1, input_tokens_details: { cached_tokens: 0 }, output_tokens: 1,
    output_tokens_details: { reasoning_tokens: 0 }, total_tokens: 2 },
});
const thought = { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: "hm" }] };
const call = { type: "function_call", id: "fc_1", call_id: "call_1", name: "add", arguments: '{"a":1}', status: "completed" };
const text = { type: "message", id: "msg_1", role: "assistant", status: "completed",
  content: [{ type: "output_text", text: "2", annotations: [], logprobs: [] }] };

/** Kinds of the items that follow the question in the second request. */
async function sent(providerOptions) {
  const bodies = [];
  const server = createServer(async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    bodies.push(JSON.parse(Buffer.concat(pieces)));
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer([...(bodies.length === 1 ? [thought, call] : [text])])));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const provider = createOpenAI({ baseURL: `http://127.0.0.1:${server.address().port}/v1`, apiKey: "k" });
  const add = tool({ description: "adds", inputSchema: z.object({ a: z.number() }), execute: async ({ a }) => a + 1 });
  await generateText({ model: provider("m"), prompt: "1 + 1?", tools: { add }, stopWhen: stepCountIs(2), providerOptions });
  server.closeAllConnections();
  server.close();
  return bodies[1].input.slice(1).map((item) => item.type).join(", ");
}

const [usual, told] = [await sent(undefined), await sent({ openai: { store: false } })];
console.log(`by default:   ${usual}`);
console.log(`store: false: ${told}`);
process.exit(usual === "item_reference, function_call, function_call_output" && told === "function_call, function_call_output" ? 0 : 1);
JS
node run.mjs
