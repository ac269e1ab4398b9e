// What the official Node packages and the Vercel AI SDK make of tool calls and reasoning.
//
// crates/api/tests/suite/retold.rs runs this, and its model server answers one after the other: a call of `weather`, or
// "It rains in Oslo.".

import { createRequire } from "node:module";
import { join } from "node:path";

const { SDK_URL: baseURL, SDK_KEY: apiKey, SDK_NODE_MODULES: modules } = process.env;
// Modules are looked for beside the importing file, and they are installed elsewhere.
const required = createRequire(join(modules, "..", "beside.js"));
const OpenAI = required("openai");
const Anthropic = required("@anthropic-ai/sdk");
const { generateText, streamText, tool, stepCountIs } = required("ai");
const { createOpenAI } = required("@ai-sdk/openai");
const { z } = required("zod");

// It would print them beside what is read of this script.
globalThis.AI_SDK_LOG_WARNINGS = false;
const model = "chat-model";
const options = { apiKey, maxRetries: 0, timeout: 60_000 };
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };

async function openai() {
  const tools = [{ type: "function", name: "weather", strict: true, parameters: schema }];
  const stream = new OpenAI({ baseURL, ...options }).responses.stream({ model, input: "Oslo?", tools });
  const call = (await stream.finalResponse()).output.at(-1);
  return [call.name, JSON.parse(call.arguments)];
}

async function anthropic() {
  const api = new Anthropic({ baseURL: baseURL.replace(/\/v1$/, ""), ...options });
  const messages = [{ role: "user", content: "Oslo?" }];
  const stream = api.messages.stream({ model, max_tokens: 50, messages, tools: [{ name: "weather", input_schema: schema }] });
  const call = (await stream.finalMessage()).content.at(-1);
  return [call.name, call.input];
}

/** The AI SDK's `openai(model)` is the Responses API. It refers to thoughts as if they were stored. */
async function aiSdk() {
  const asked = [];
  const weather = tool({
    description: "The weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      asked.push(city);
      return "Rain.";
    },
  });
  const chosen = createOpenAI({ baseURL, apiKey })(model);
  const ask = { model: chosen, maxRetries: 0, prompt: "Oslo?", tools: { weather }, stopWhen: stepCountIs(2) };
  const whole = await generateText(ask);
  const streamed = streamText(ask);
  return [whole.text, await streamed.text, asked];
}

console.log(JSON.stringify([await openai(), await anthropic(), await aiSdk()]));
