// Webhooks as a receiver checks them in Node: with OpenAI's package and with the one of Standard Webhooks.
//
// crates/server/tests/sdk.rs starts the server and runs this. The first check that fails ends the run.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const env = (name) => process.env[name] ?? assert.fail(`${name} is not set`);
const [url, key] = ["SDK_URL", "SDK_KEY"].map(env);
// Modules are looked for beside the importing file, and they are installed elsewhere.
const beside = createRequire(join(env("SDK_NODE_MODULES"), "..", "beside.js"));
const OpenAI = beside("openai");
const { Webhook } = beside("standardwebhooks");

const chatModel = "smollm2-135m-instruct";

/** Requests that have come, and those who wait for one. */
const [received, waiting] = [[], []];
const receiver = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  response.writeHead(204).end();
  const got = { body, headers: request.headers };
  if (waiting.length > 0) waiting.shift()(got);
  else received.push(got);
});
await new Promise((listening) => receiver.listen(0, "127.0.0.1", listening));
const hook = `http://127.0.0.1:${receiver.address().port}/hook`;

async function call(path, body = {}) {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const answer = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

/** Runs a batch; gives its id and the request that tells of its end. */
async function batchAndItsEvent() {
  const request_body = { messages: [{ role: "user", content: "Hi" }], max_tokens: 2 };
  const tasks = [{ custom_id: "a", model: chatModel, request_body }];
  const { id } = await call("/v1/batches", { tasks, webhook_url: hook, priority: "low" });
  const got = received.shift() ?? (await new Promise((come) => waiting.push(come)));
  return { id, ...got };
}

/** Both packages take it, and neither takes another secret, body or id. */
async function verifies(secret, { body, headers }) {
  const unwrap = (webhookSecret, text, signed) =>
    new OpenAI({ apiKey: "unused", webhookSecret }).webhooks.unwrap(text, signed);
  const event = await unwrap(secret, body, headers);
  assert.deepEqual(new Webhook(secret).verify(body, headers), event);
  const other = `whsec_${"A".repeat(43)}=`;
  const wrongs = [
    [other, body, headers],
    [secret, `${body} `, headers],
    [secret, body, { ...headers, "webhook-id": "evt_x" }],
  ];
  for (const [wrongSecret, wrongBody, wrongHeaders] of wrongs) {
    await assert.rejects(() => unwrap(wrongSecret, wrongBody, wrongHeaders), OpenAI.InvalidWebhookSignatureError);
    assert.throws(() => new Webhook(wrongSecret).verify(wrongBody, wrongHeaders));
  }
  return event;
}

const { secret } = await call("/v1/webhooks/secret");
const first = await batchAndItsEvent();
const event = await verifies(secret, first);
assert.deepEqual([event.object, event.type, event.data], ["event", "batch.completed", { id: first.id }]);
assert.equal(event.id, first.headers["webhook-id"]);

// While two secrets count, whoever knows either of them can check.
const newer = (await call("/v1/webhooks/secret")).secret;
const second = await batchAndItsEvent();
for (const known of [secret, newer]) assert.equal((await verifies(known, second)).data.id, second.id);
receiver.close();
receiver.closeAllConnections();
