// What the official Node package's helper makes of the tool calls in a stream, one after the other.
//
// crates/api/tests/suite/odd_servers.rs runs this.

import { createRequire } from "node:module";
import { join } from "node:path";

const { SDK_URL: baseURL, SDK_KEY: apiKey, SDK_NODE_MODULES: modules } = process.env;
// Modules are looked for beside the importing file, and they are installed elsewhere.
const OpenAI = createRequire(join(modules, "..", "beside.js"))("openai");

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "x" }];
const stream = client.chat.completions.stream({ model: "chat-model", messages, max_tokens: 50 });
const calls = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
console.log(JSON.stringify(calls.map((call) => [call.id, call.function.name, call.function.arguments])));
