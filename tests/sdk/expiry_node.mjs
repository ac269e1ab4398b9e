// A batch whose window passes, as the official Node package sees it.
//
// `create` makes one and prints its id; `check ID` runs against a server whose clock is hours ahead.
// crates/server/tests/processes/expiry.rs starts the servers and runs this.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

// Modules are looked for beside the importing file, and they are installed elsewhere.
const OpenAI = createRequire(join(process.env.SDK_NODE_MODULES, "..", "beside.js"))("openai");
const client = new OpenAI({
  baseURL: process.env.SDK_URL + "/openai/v1", apiKey: process.env.SDK_KEY, maxRetries: 0, timeout: 60_000,
});

const line = (custom_id, model) =>
  JSON.stringify({
    custom_id,
    method: "POST",
    url: "/v1/chat/completions",
    body: { model, messages: [{ role: "user", content: "hi" }], max_tokens: 10 },
  });

async function create() {
  const lines = [line("quick", "fixed"), line("never", "endless")].join("\n");
  const file = await client.files.create({ file: await OpenAI.toFile(Buffer.from(lines), "input.jsonl"), purpose: "batch" });
  // A low batch waits behind its own request that hangs; a high one has a place for each.
  const order = {
    input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "1h", priority: "high",
  };
  console.log((await client.batches.create(order)).id);
}

async function linesOf(fileId) {
  const text = await (await client.files.content(fileId)).text();
  return text.trim().split("\n").map((one) => JSON.parse(one));
}

async function check(id) {
  const deadline = Date.now() + 30_000;
  let batch;
  while ((batch = await client.batches.retrieve(id)).status !== "expired") {
    assert.ok(["in_progress", "finalizing"].includes(batch.status) && Date.now() < deadline, JSON.stringify(batch));
    await pause(50);
  }
  assert.deepEqual(batch.request_counts, { total: 2, completed: 1, failed: 1 });
  assert.ok(batch.expired_at >= batch.expires_at && batch.completed_at === null, JSON.stringify(batch));
  const [done, ...more] = await linesOf(batch.output_file_id);
  assert.deepEqual([done.custom_id, done.response.status_code, more.length], ["quick", 200, 0]);
  const [late, ...others] = await linesOf(batch.error_file_id);
  assert.deepEqual([late.custom_id, late.error.code, late.response, others.length], ["never", "batch_expired", null, 0]);
}

const [what, ...rest] = process.argv.slice(2);
await { create, check }[what](...rest);
