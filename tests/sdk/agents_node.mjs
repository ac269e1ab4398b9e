// Responses and messages with the official Node packages and the Vercel AI SDK, against a running server whose model
// server has chats alone.
//
// crates/server/tests/sdk.rs starts the server, makes the keys and runs this. The model is small: what it is made to say
// is bound by a schema. The first check that fails ends the run.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const env = (name) => process.env[name] ?? assert.fail(`${name} is not set`);
const [url, key] = ["SDK_URL", "SDK_KEY"].map(env);
// Modules are looked for beside the importing file, and they are installed elsewhere.
const required = createRequire(join(env("SDK_NODE_MODULES"), "..", "beside.js"));
const OpenAI = required("openai");
const Anthropic = required("@anthropic-ai/sdk");
const { generateText, generateObject, streamText } = required("ai");
const { createOpenAI } = required("@ai-sdk/openai");
const { z } = required("zod");

const model = "smollm2-135m-instruct";
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: 120_000 });
const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0, timeout: 120_000 });
const question = "Name three colours.";

async function responses() {
  const asked = { model, input: question, max_output_tokens: 24, temperature: 0 };
  const answer = await openai.responses.create(asked);
  assert.match(answer.id, /^resp_/);
  assert.ok(answer.output_text && answer.usage.output_tokens > 0);
  const stream = openai.responses.stream(asked);
  const kinds = new Set();
  for await (const event of stream) kinds.add(event.type);
  assert.equal((await stream.finalResponse()).output_text, answer.output_text);
  assert.ok(kinds.has("response.output_text.delta"));
}

async function messages() {
  const asked = { model, max_tokens: 24, temperature: 0, messages: [{ role: "user", content: question }] };
  const whole = await anthropic.messages.create(asked);
  assert.match(whole.id, /^msg_/);
  const streamed = await anthropic.messages.stream(asked).finalMessage();
  assert.deepEqual(streamed.content, whole.content);
  assert.deepEqual([streamed.stop_reason, streamed.usage.output_tokens], [whole.stop_reason, whole.usage.output_tokens]);
  const error = await anthropic.messages.create({ ...asked, model: "gpt-99" }).catch((error) => error);
  assert.deepEqual([error.status, error.error.error.type], [404, "not_found_error"]);
}

/** The AI SDK's `openai(model)` is the Responses API. */
async function aiSdk() {
  const chosen = createOpenAI({ baseURL: `${url}/v1`, apiKey: key })(model);
  const options = { model: chosen, maxRetries: 0, temperature: 0, maxOutputTokens: 40 };
  const whole = await generateText({ ...options, prompt: question });
  assert.ok(whole.text && whole.usage.outputTokens > 0);
  const parts = [];
  for await (const part of streamText({ ...options, prompt: question }).textStream) parts.push(part);
  assert.equal(parts.join(""), whole.text);
  const schema = z.object({ legs: z.number().int() });
  const { object } = await generateObject({ ...options, schema, prompt: "How many legs has a cat?" });
  assert.equal(typeof object.legs, "number");
}

for (const check of [responses, messages, aiSdk]) {
  try {
    await check();
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}
