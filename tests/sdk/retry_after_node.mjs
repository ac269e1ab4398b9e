// How long the official Node package waits before it tries a busy model again.
//
// crates/server/tests/processes/retry_after.rs starts a server whose model server asks for an hour, and runs this. Time
// is not waited for: what the package asks for is noted.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const OpenAI = createRequire(join(process.env.SDK_NODE_MODULES, "..", "beside.js"))("openai");
const paused = [];
const { setTimeout } = globalThis;
// The time-out of a request is a timer too; a pause before a retry is one that somebody waits for.
const TIMEOUT = 600_000;
globalThis.setTimeout = (then, delay, ...rest) => {
  if (delay === TIMEOUT || delay === undefined || delay < 100) return setTimeout(then, delay, ...rest);
  paused.push(delay);
  return setTimeout(then, 0, ...rest);
};
const client = new OpenAI({
  baseURL: process.env.SDK_URL + "/v1", apiKey: process.env.SDK_KEY, maxRetries: 1, timeout: TIMEOUT,
});
const asked = client.chat.completions.create({ model: "fixed", messages: [{ role: "user", content: "hi" }], max_tokens: 10 });
const error = await asked.then((answer) => assert.fail(JSON.stringify(answer)), (error) => error);
assert.equal(error.status, 503, String(error));
assert.equal(error.headers.get("retry-after"), "60");
// The package tried again, and no sooner than it was told. Node's own timers, for idle connections, are a few seconds.
const waited = paused.filter((delay) => delay > 10_000);
assert.ok(waited.length === 1 && waited[0] >= 55_000 && waited[0] <= 60_000, JSON.stringify(paused));
